"""The autoencoder applied to many images at once: the proximal step, slots, CUDA Graphs, in-flight batching."""

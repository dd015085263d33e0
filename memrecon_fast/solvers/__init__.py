"""How a block of slots advances: the paper's solver, and the iteration of the autoencoder alone."""

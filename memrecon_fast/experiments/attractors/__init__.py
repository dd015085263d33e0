"""Radhakrishnan et al., Memorization in Overparameterized Autoencoders, arXiv 1810.10333."""

"""Attractors: which training images does the autoencoder fall into?  Radhakrishnan et al.

import memrecon_fast as mf

mf.attractors.spectra(autoencoder, images).radius         # the largest eigenvalue of the Jacobian at each image
"""

from __future__ import annotations

from memrecon_fast.attractors.spectra import SingularValues, Spectra, singular_values, spectra

__all__ = ["SingularValues", "Spectra", "singular_values", "spectra"]

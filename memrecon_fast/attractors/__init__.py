"""Attractors: which training images does the autoencoder fall into?  Radhakrishnan et al.

import memrecon_fast as mf

mf.attractors.stability(autoencoder, images)              # a verdict on each image, and what it rests on
mf.attractors.harvest(autoencoder, image_shape)           # fixed points that random starts fall into
mf.attractors.spectra(autoencoder, images).radius         # the largest eigenvalue of the Jacobian at each image
"""

from __future__ import annotations

from memrecon_fast.attractors.fixed_points import FixedPoints, fixed_points
from memrecon_fast.attractors.harvest import Harvest, harvest
from memrecon_fast.attractors.spectra import SingularValues, Spectra, singular_values, spectra
from memrecon_fast.attractors.stability import Stability, Verdict, stability

__all__ = [
    "FixedPoints",
    "Harvest",
    "SingularValues",
    "Spectra",
    "Stability",
    "Verdict",
    "fixed_points",
    "harvest",
    "singular_values",
    "spectra",
    "stability",
]

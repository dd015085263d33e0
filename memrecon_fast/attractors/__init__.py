"""Attractors: which training images does the autoencoder fall into?  Radhakrishnan et al.

import memrecon_fast as mf

mf.attractors.stability(autoencoder, images)              # a verdict on each image, and what it rests on
mf.attractors.harvest(autoencoder, image_shape)           # fixed points that random starts fall into
mf.attractors.recovery_curve(autoencoder, images)         # π(t): starts that are training images after t steps
mf.attractors.basins(autoencoder, images)                 # from how far away each image comes back
mf.attractors.cycles(autoencoder, starts)                 # starts that come to no rest, but back to where they were
mf.attractors.spectra(autoencoder, images).radius         # the largest eigenvalue of the Jacobian at each image
"""

from __future__ import annotations

from memrecon_fast.attractors import theory
from memrecon_fast.attractors.basins import Basins, Censoring, basins
from memrecon_fast.attractors.curves import RecoveryCurve, recovery_curve
from memrecon_fast.attractors.cycles import Cycles, Motion, cycles
from memrecon_fast.attractors.fixed_points import FixedPoints, fixed_points
from memrecon_fast.attractors.harvest import Harvest, harvest
from memrecon_fast.attractors.spectra import SingularValues, Spectra, singular_values, spectra
from memrecon_fast.attractors.stability import Stability, Verdict, stability

__all__ = [
    "Basins",
    "Censoring",
    "Cycles",
    "FixedPoints",
    "Harvest",
    "Motion",
    "RecoveryCurve",
    "SingularValues",
    "Spectra",
    "Stability",
    "Verdict",
    "basins",
    "cycles",
    "fixed_points",
    "harvest",
    "recovery_curve",
    "singular_values",
    "spectra",
    "stability",
    "theory",
]

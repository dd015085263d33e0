"""Reconstruction: training inputs from a model's parameters alone.  Iurada et al.

import memrecon_fast as mf

model = mf.reconstruction.RandomFeatures.from_seed(p=4000, d=100)
theta = model.fit(inputs, labels)                        # what was published
found = mf.reconstruct(model, theta)                     # the inputs again
mf.reconstruction.compare(inputs, found.inputs).error    # ρ
"""

from __future__ import annotations

from memrecon_fast.reconstruction import reference
from memrecon_fast.reconstruction.compare import Comparison, compare
from memrecon_fast.reconstruction.head import Head
from memrecon_fast.reconstruction.random_features import RandomFeatures
from memrecon_fast.reconstruction.reconstructing import reconstruct
from memrecon_fast.reconstruction.results import Reconstruction, ReconstructionSettings

__all__ = [
    "Comparison",
    "Head",
    "RandomFeatures",
    "Reconstruction",
    "ReconstructionSettings",
    "compare",
    "reconstruct",
    "reference",
]

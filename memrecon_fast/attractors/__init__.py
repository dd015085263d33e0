"""Attractors: which training images does the autoencoder fall into?  Radhakrishnan et al.

import memrecon_fast as mf

mf.attractors.stability(autoencoder, images)              # a verdict on each image, and what it rests on
mf.attractors.harvest(autoencoder, image_shape)           # fixed points that random starts fall into
mf.attractors.recovery_curve(autoencoder, images)         # π(t): starts that are training images after t steps
mf.attractors.basins(autoencoder, images)                 # from how far away each image comes back
mf.attractors.cycles(autoencoder, starts)                 # starts that come to no rest, but back to where they were
mf.attractors.spectra(autoencoder, images).radius         # the largest eigenvalue of the Jacobian at each image

Surveys do this for many images (but for cycles), in a folder, block by block, with workers, tables and a report:

members = mf.images.open_images("photographs")            # a folder, an array, Parquet files, …
survey = mf.attractors.Survey({"members": members}, harvest=300, curve=300, basins=("noise",))
run = mf.attractors.run(survey, "model.safetensors", "RUN")
run.table("stability-members").to_pandas()
mf.attractors.open("RUN").summary["harvest"]

Needs the extra `audit`: pip install 'memrecon-fast[audit]'.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from memrecon_fast.attractors import theory
from memrecon_fast.attractors.basins import Basins, Censoring, basins
from memrecon_fast.attractors.curves import RecoveryCurve, recovery_curve
from memrecon_fast.attractors.cycles import Cycles, Motion, cycles
from memrecon_fast.attractors.fixed_points import FixedPoints, fixed_points
from memrecon_fast.attractors.harvest import Harvest, harvest
from memrecon_fast.attractors.spectra import SingularValues, Spectra, singular_values, spectra
from memrecon_fast.attractors.stability import Stability, Verdict, stability

if TYPE_CHECKING:
    from memrecon_fast.attractors.opened import Run as Run
    from memrecon_fast.attractors.opened import open_run as open
    from memrecon_fast.attractors.session import run as run
    from memrecon_fast.attractors.survey.plan import Survey as Survey

_HOMES = {
    "Run": ("opened", "Run"),
    "Survey": ("survey.plan", "Survey"),
    "open": ("opened", "open_run"),
    "run": ("session", "run"),
}
"""Public names that are imported when they are first used: functions need not load what draws charts."""

__all__ = [
    "Basins",
    "Censoring",
    "Cycles",
    "FixedPoints",
    "Harvest",
    "Motion",
    "RecoveryCurve",
    "Run",
    "SingularValues",
    "Spectra",
    "Stability",
    "Survey",
    "Verdict",
    "basins",
    "cycles",
    "fixed_points",
    "harvest",
    "open",
    "recovery_curve",
    "run",
    "singular_values",
    "spectra",
    "stability",
    "theory",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _HOMES[name]
    return getattr(importlib.import_module(f"{__name__}.{module}"), attribute)

"""Reconstruction: training inputs from a model's parameters alone.  Iurada et al.

import memrecon_fast as mf

model = mf.reconstruction.RandomFeatures.from_seed(p=4000, d=100)
theta = model.fit(inputs, labels)                        # what was published
found = mf.reconstruct(model, theta)                     # the inputs again
mf.reconstruction.compare(inputs, found.inputs).error    # ρ

mf.reconstruction.save(model, theta, "model.safetensors")    # what `memrecon reconstruct` reads

A run does this from several starts, in a folder, and writes tables and a report; what is looked for is a `Search`:

mf.reconstruction.run(search, "RUN").summary             # needs the extra `audit`: pip install 'memrecon-fast[audit]'
mf.reconstruction.open("RUN").results
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from memrecon_fast.reconstruction import reference
from memrecon_fast.reconstruction.compare import Comparison, compare
from memrecon_fast.reconstruction.head import Head
from memrecon_fast.reconstruction.nets import ResidualNet, Trained, TwoLayer, fit
from memrecon_fast.reconstruction.pictures import Scaling
from memrecon_fast.reconstruction.random_features import RandomFeatures
from memrecon_fast.reconstruction.reconstructing import reconstruct
from memrecon_fast.reconstruction.results import Reconstruction, ReconstructionSettings
from memrecon_fast.reconstruction.states import from_states, initial_state
from memrecon_fast.reconstruction.verdicts import Judged, Verdict, judge

if TYPE_CHECKING:
    from memrecon_fast.reconstruction.files import load as load
    from memrecon_fast.reconstruction.files import save as save
    from memrecon_fast.reconstruction.opened import Run as Run
    from memrecon_fast.reconstruction.opened import open_run as open
    from memrecon_fast.reconstruction.search import Law as Law
    from memrecon_fast.reconstruction.search import Search as Search
    from memrecon_fast.reconstruction.search import Target as Target
    from memrecon_fast.reconstruction.search import Truth as Truth
    from memrecon_fast.reconstruction.session import run as run

_HOMES = {
    "Law": ("search", "Law"),
    "Run": ("opened", "Run"),
    "Search": ("search", "Search"),
    "Target": ("search", "Target"),
    "Truth": ("search", "Truth"),
    "load": ("files", "load"),
    "open": ("opened", "open_run"),
    "run": ("session", "run"),
    "save": ("files", "save"),
}
"""Public names that are imported when they are first used: functions need not load what draws charts."""

__all__ = [
    "Comparison",
    "Head",
    "Judged",
    "Law",
    "RandomFeatures",
    "Reconstruction",
    "ReconstructionSettings",
    "ResidualNet",
    "Run",
    "Scaling",
    "Search",
    "Target",
    "Trained",
    "Truth",
    "TwoLayer",
    "Verdict",
    "compare",
    "fit",
    "from_states",
    "initial_state",
    "judge",
    "load",
    "open",
    "reconstruct",
    "reference",
    "run",
    "save",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _HOMES[name]
    return getattr(importlib.import_module(f"{__name__}.{module}"), attribute)

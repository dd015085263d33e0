"""The papers' tables and figures, made again: `memrecon reproduce NAME --out DIR`.

A new one is a module that makes an `Experiment`, and its line in `MODULES`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from memrecon_fast.common.checks import suggestion

if TYPE_CHECKING:
    from memrecon_fast.experiments.experiment import Experiment

MODULES = {
    "fig1": "recovery.fig1",
    "fig2": "recovery.fig2",
    "fig3": "recovery.fig3",
    "figF1": "recovery.fig_f1",
    "figF2": "recovery.fig_f2",
    "figF3": "recovery.fig_f3",
    "figF4": "recovery.fig_f4",
    "figG1": "recovery.fig_g1",
    "table1": "recovery.table1",
    "table2": "recovery.table2",
    "controls": "recovery.controls",
    "near-duplicates": "recovery.near_duplicates",
    "noise": "recovery.noise",
    "initial-masks": "recovery.initial_masks",
    "nets": "recovery.kinds_of_nets",
    "set-size": "recovery.set_size",
    "failures": "recovery.failures",
    "attractors-single-layer": "attractors.single_layer",
    "attractors-table1": "attractors.table1",
    "attractors-table2": "attractors.table2",
    "attractors-one-filter": "attractors.one_filter",
    "attractors-strided": "attractors.strided",
    "attractors-initialisation": "attractors.initialisation",
    "attractors-line": "attractors.line",
    "attractors-plane": "attractors.plane",
    "attractors-capacity": "attractors.capacity",
    "attractors-one-step": "attractors.one_step",
    "attractors-convolutional": "attractors.convolutional",
    "attractors-reconstruction": "attractors.reconstruction",
    "attractors-early-stopping": "attractors.early_stopping",
    "reconstruction-law": "reconstruction.law",
    "reconstruction-photographs": "reconstruction.photographs",
    "reconstruction-nets": "reconstruction.nets",
    "reconstruction-noise": "reconstruction.noise",
    "reconstruction-classifier": "reconstruction.classifier",
}
"""The module of each experiment, in this package, by the experiment's name."""


def find(name: str) -> Experiment:
    """The experiment of this name. Raises ValueError where there is none."""
    if name not in MODULES:
        raise ValueError(f"there is no experiment {name!r}{suggestion(name, MODULES)}; --list shows all")
    found: Experiment = importlib.import_module(f"{__name__}.{MODULES[name]}").EXPERIMENT
    return found


def every() -> list[Experiment]:
    """All of them."""
    return [find(name) for name in MODULES]

"""Figure 2: the estimates of the mask along the iterations: the cells of Figure 1, shown in another way."""

from __future__ import annotations

import dataclasses

from memrecon_fast.experiments.recovery import fig1

EXPERIMENT = dataclasses.replace(
    fig1.EXPERIMENT,
    name="fig2",
    family=fig1.EXPERIMENT.name,
    what="the estimates of the mask along the iterations",
    reproduces="Figure 2",
    tables=lambda outcomes: {},  # the rows are many, and those of the first of the family
    columns=("mask", "image", "iteration", "wrong_mask_share", "score"),
    draw=lambda outcomes: {
        f"fig2-{cell}": fig1.iterations_figure(one, {"masks": "mask"}, "mask") for cell, one in outcomes.items()
    },
)

"""The controls of Section 4: the cells of Figure 3, of which those with the lowest losses are tried on controls."""

from __future__ import annotations

import dataclasses

from memrecon_fast.experiments.recovery import fig3
from memrecon_fast.experiments.recovery.rates import controls_table

EXPERIMENT = dataclasses.replace(
    fig3.EXPERIMENT,
    name="controls",
    family=fig3.EXPERIMENT.name,
    what="how many images come back that the nets have never seen",
    reproduces="Section 4, data that are no training data: none came back, but for 2 of 600 approximately",
    draw=lambda outcomes: {},
    tables=lambda outcomes: {"controls": controls_table(outcomes)},
)

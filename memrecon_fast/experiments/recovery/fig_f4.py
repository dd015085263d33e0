"""Figure F.4: the cells of Figure 3, shown in another way."""

from __future__ import annotations

import dataclasses

from memrecon_fast.experiments.recovery import fig3
from memrecon_fast.experiments.recovery.rates import thresholds_figure, thresholds_table

EXPERIMENT = dataclasses.replace(
    fig3.EXPERIMENT,
    name="figF4",
    family=fig3.EXPERIMENT.name,
    what="how many training images come back, for any threshold of the error",
    reproduces="Figure F.4",
    draw=lambda outcomes: {"figF4": thresholds_figure(outcomes)},
    tables=lambda outcomes: {"figF4": thresholds_table(outcomes)},
)

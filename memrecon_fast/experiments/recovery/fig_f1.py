"""Figure F.1: the cells of Figure 3, shown in another way."""

from __future__ import annotations

import dataclasses

from memrecon_fast.experiments.recovery import fig3
from memrecon_fast.experiments.recovery.rates import borderline_figure

EXPERIMENT = dataclasses.replace(
    fig3.EXPERIMENT,
    name="figF1",
    family=fig3.EXPERIMENT.name,
    what="what a recovery looks like whose error is just below the threshold",
    reproduces="Figure F.1",
    draw=lambda outcomes: {"figF1": borderline_figure(outcomes)},
    tables=lambda outcomes: {},  # the rows are many, and those of the first of the family
)

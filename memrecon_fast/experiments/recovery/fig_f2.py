"""Figure F.2: the cells of Figure 3, shown in another way."""

from __future__ import annotations

import dataclasses

from memrecon_fast.experiments.recovery import fig3
from memrecon_fast.experiments.recovery.rates import rates_figure, rates_table

EXPERIMENT = dataclasses.replace(
    fig3.EXPERIMENT,
    name="figF2",
    family=fig3.EXPERIMENT.name,
    what="how many training images come back approximately, by mask, net and train loss",
    reproduces="Figure F.2",
    draw=lambda outcomes: {"figF2": rates_figure(outcomes, "approximate")},
    tables=lambda outcomes: {
        "figF2": rates_table(outcomes, "approximate", "Approximate recovery (MSE < 5e-4), in % of the members.")
    },
)

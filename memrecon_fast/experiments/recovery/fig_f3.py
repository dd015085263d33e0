"""Figure F.3: the cells of Figure 3, shown in another way."""

from __future__ import annotations

import dataclasses

from memrecon_fast.experiments.recovery import fig3
from memrecon_fast.experiments.recovery.rates import rates_figure, rates_table

EXPERIMENT = dataclasses.replace(
    fig3.EXPERIMENT,
    name="figF3",
    family=fig3.EXPERIMENT.name,
    what="the mean PSNR of what comes back, by mask, net and train loss",
    reproduces="Figure F.3",
    draw=lambda outcomes: {"figF3": rates_figure(outcomes, "psnr")},
    tables=lambda outcomes: {"figF3": rates_table(outcomes, "psnr", "Mean PSNR of all estimates, in dB.")},
)

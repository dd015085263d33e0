"""Table 1: filters do not make up for missing depth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure

from memrecon_fast.experiments.attractors.table2 import draw_spectra, measure_chain
from memrecon_fast.experiments.experiment import Experiment, Outcome, Scale

_SPREAD = {1: 0.1, 16: 0.03, 128: 0.01}
"""Of the first weights, by the number of filters."""


def _draw(outcomes: Mapping[str, Outcome]) -> dict[str, Figure]:
    return {"spectra": draw_spectra(outcomes, "{layers} layers, {filters} filters")}


def _cells(layers: tuple[int, ...], filters: tuple[int, ...], **more: Any) -> dict[str, dict[str, Any]]:
    return {
        f"{depth}-layers-{count}-filters": {
            "size": 3,
            "images": 2,
            "net": {"layers": depth, "filters": count, "spread": _SPREAD[count]},
            **more,
        }
        for depth in layers
        for count in filters
    }


_LAYERS = (2, 3, 5, 8, 10)
_SMALL = _cells(_LAYERS, (1, 16))

EXPERIMENT = Experiment(
    name="attractors-table1",
    what="too few linear convolutions do not memorise two images of 3×3, however many filters they have",
    reproduces="Table 1 (Appendix F)",
    differs=(
        "The paper's first three rows are said to have 2 layers, and have the parameters of 3 (27, 2592, 149760): here "
        "are both. 10 layers, one more than the heuristic depth, are here beside its 2, 5 and 8; 128 filters "
        "are at --scale paper, begun once.",
        "The paper's rate and target are lost in the text that we have. Here it is gradient descent with Polyak's step "
        "length, until 1e-8, each net begun five times: the row is the median by the largest eigenvalue that is none "
        "of the two 1s, 'of starts' the range of that.",
        "The paper finds 8 layers not enough. Here that eigenvalue falls steadily with the depth.",
    ),
    scales={
        "small": Scale(_SMALL, minutes=1),
        "paper": Scale({**_SMALL, **_cells(_LAYERS, (128,), starts=1, max_steps=2000)}, minutes=5),
    },
    measure=measure_chain,
    columns=("layers", "filters", "parameters", "converged", "spectrum", "largest_other", "of_starts"),
    draw=_draw,
)

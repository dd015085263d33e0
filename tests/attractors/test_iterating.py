"""Anderson acceleration of x ← f(x)."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from memrecon_fast.attractors import iterating
from memrecon_fast.engine.prox import make_prox
from memrecon_fast.solvers.accelerated import AcceleratedSolver


def halve(images: Tensor) -> Tensor:
    return images * 0.5 + 0.2


@pytest.mark.parametrize("most", [3, 60, 1000])
def test_it_goes_on_until_the_residual_is_small_or_so_many_times(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    """It is never given up earlier, however its estimates settle: that an estimate explains nothing means nothing."""
    made: list[Any] = []

    def solver(*parts: Any, **more: Any) -> AcceleratedSolver:
        made.append(parts[2])
        return AcceleratedSolver(*parts, **more)

    monkeypatch.setattr(iterating, "AcceleratedSolver", solver)
    prox = make_prox(halve, (1, 2, 3), torch.device("cpu"))
    reached = iterating.extrapolate_from(prox, torch.rand(4, 1, 2, 3), most, 1e-12)
    (settings,) = made
    assert settings.stall >= settings.max_outer_iterations * settings.settled_counts
    if most > 3:
        torch.testing.assert_close(reached.images, torch.full((4, 1, 2, 3), 0.4), rtol=0, atol=1e-5)
    assert (reached.evaluations <= most).all()

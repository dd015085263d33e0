"""A solver is added by one record."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

import memrecon_fast as mf
from memrecon_fast.common.typing import Autoencoder
from memrecon_fast.engine.solver import Solver
from memrecon_fast.settings import SOLVERS, SolverRecord
from memrecon_fast.solvers import iteration
from tests.helpers.memorised import Memorised


def prepare(
    autoencoder: Autoencoder,
    image_shape: Sequence[int],
    settings: mf.Settings,
    *,
    known_masks: bool,
    backend: str,
    device: torch.device,
) -> Solver:
    """The autoencoder alone, as a solver."""
    assert not known_masks
    limit, tolerance = settings.max_outer_iterations, settings.stop_below
    return iteration.prepare(autoencoder, image_shape, limit, tolerance, backend=backend, device=device)


def test_a_solver_from_outside_is_a_setting_like_the_others(
    memorised: Memorised, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = SolverRecord("alone", gammas=(1.0,), reads=frozenset({"stall"}), prepare=prepare)
    monkeypatch.setitem(SOLVERS, record.name, record)
    degraded = memorised.members * 0.9
    recovery = mf.recover(memorised.autoencoder, degraded, settings=mf.Settings(solver="alone", stall=3))
    expected = mf.iterate(memorised.autoencoder, degraded, max_iterations=200)
    assert torch.equal(recovery.images, expected.images)
    assert torch.equal(recovery.outer_iterations, expected.outer_iterations)
    with pytest.raises(ValueError, match=r"'alone' does not read memory: .* the solver 'accelerated'"):
        mf.Settings(solver="alone", memory=7)


def test_the_solvers_of_the_package() -> None:
    assert list(SOLVERS) == ["paper", "accelerated"]

"""The benchmark of reconstruction still runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks.experiments import reconstruction


def test_quick(tmp_path: Path) -> None:
    reconstruction.main(["--quick", "--out", str(tmp_path / "reconstruction")])
    found = json.loads((tmp_path / "reconstruction.json").read_text())
    ours, *others = found["rows"]
    assert ours["back"] == 3
    assert ours["error"] < 1e-6
    assert [one["optimiser"] for one in others] == ["the paper's", "Adam", "L-BFGS"]
    assert all(one["error"] <= 0.1 and one["passes"] > 0 for one in others)
    assert "| Adam |" in (tmp_path / "reconstruction.md").read_text()


def test_the_loss_of_inputs_of_any_length_is_that_on_the_sphere() -> None:
    problem = reconstruction.Problem.of(2, 10, 0)
    free = problem.start * torch.tensor([[0.5], [3.0]]).double()
    value, gradient = problem.loss(free)
    assert value == pytest.approx(problem.loss(problem.start)[0])
    step = 1e-7 * gradient
    change = (problem.loss(free + step)[0] - problem.loss(free - step)[0]) / 2
    assert change == pytest.approx(float((step * gradient).sum()), rel=1e-4)

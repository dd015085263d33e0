"""The paper's optimiser through `reconstruct`: it arrives, says so where it does not, and needs to be told n."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from torch import Tensor

from memrecon_fast.reconstruction import Head, ReconstructionSettings, compare, reconstruct, reference
from memrecon_fast.reconstruction.domain import Domain
from memrecon_fast.results import Status
from tests.helpers.features import fitted


def test_two_inputs_come_back() -> None:
    one = fitted(2, 10, 400)
    settings = ReconstructionSettings(tolerance=1e-3, method="sgd", steps=3000)
    seen: list[float] = []
    found = reconstruct(one.model, one.theta, 2, settings, watch=lambda effort: seen.append(effort.residual))
    assert found.status == Status.CONVERGED
    assert found.iterations == len(seen) < 3000
    assert found.residual == seen[-1] <= 1e-3 < seen[-2]
    assert found.residual**2 == pytest.approx(float(reference.loss(one.model, found.inputs, one.theta)), rel=1e-6)
    assert found.signs_known.all()
    assert compare(one.inputs, found.inputs).error < 5e-3


def test_a_head_of_the_same_features_takes_the_same_way() -> None:
    one = fitted(2, 10, 400)
    settings = ReconstructionSettings(tolerance=1e-3, method="sgd", steps=20)
    found = reconstruct(one.model, one.theta, 2, settings)
    same = reconstruct(Head(lambda x: torch.relu(x @ one.model.weights[:].T), (10,)), one.theta, 2, settings)
    assert found.status == same.status == Status.MAX_ITERATIONS
    assert found.iterations == same.iterations == 20
    assert not found.signs_known.any()  # nothing is known of what does not explain theta
    torch.testing.assert_close(found.inputs, same.inputs, rtol=1e-9, atol=1e-9)


def test_lengths_are_known_where_they_are_looked_for() -> None:
    one = fitted(2, 10, 400)
    settings = ReconstructionSettings(method="sgd", learning_rate=0.1, steps=2)
    body = functools.partial(_shifted, one.model.weights[:])
    free = reconstruct(Head(body, (10,), Domain(10, on_sphere=False)), one.theta, 2, settings)
    assert free.lengths_known
    assert not reconstruct(Head(body, (10,)), one.theta, 2, settings).lengths_known


def _shifted(weights: Tensor, x: Tensor) -> Tensor:
    return torch.relu(x @ weights.T + 0.5)


def test_what_diverges_says_so_and_keeps_the_inputs_before() -> None:
    one = fitted(2, 10, 400)
    found = reconstruct(one.model, one.theta, 2, ReconstructionSettings(method="sgd", learning_rate=1e200))
    assert found.status == Status.DIVERGED
    assert found.iterations == 0
    assert found.inputs.isfinite().all()
    assert "does NOT explain" in repr(found)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"method": "adam"}, ValueError, "method must be one of 'gauss-newton', 'sgd'"),
        ({"method": "sgd", "learning_rate": 0.0}, ValueError, "learning_rate must be finite and above 0"),
        ({"method": "sgd", "steps": 0}, ValueError, "steps must be at least 1"),
        ({"method": "sgd", "rows_per_unknown": 4.0}, ValueError, "rows_per_unknown is not read by the method 'sgd'"),
        ({"learning_rate": 2000.0}, ValueError, "learning_rate is not read by the method 'gauss-newton'"),
        ({"steps": 10}, ValueError, "steps is not read by the method 'gauss-newton'"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ReconstructionSettings(**settings)


def test_it_must_be_told_how_many_inputs_there_are() -> None:
    one = fitted(2, 10, 400)
    with pytest.raises(ValueError, match="must be told how many inputs there are"):
        reconstruct(one.model, one.theta, None, ReconstructionSettings(method="sgd"))

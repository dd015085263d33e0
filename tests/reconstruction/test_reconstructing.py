"""reconstruct(): the page's cases, and what is refused."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from memrecon_fast.reconstruction import RandomFeatures, compare, memory, reconstruct, reference, results
from memrecon_fast.results import Status
from tests.helpers.features import fitted


@pytest.mark.parametrize(
    ("n", "d", "ratio", "seed"), [(5, 50, 2.5, 0), (5, 50, 2.5, 1), (10, 100, 2.5, 0), (20, 100, 10, 0)]
)
def test_every_input_with_its_sign(n: int, d: int, ratio: float, seed: int) -> None:
    one = fitted(n, d, int(ratio * n * d), seed)
    found = reconstruct(one.model, one.theta, n)
    compared = compare(one.inputs, found.inputs)
    assert compared.recovered == n
    assert not compared.flipped.any()
    assert compared.error < 1e-8  # the residual ends below 1e-10, and is magnified by weak coefficients
    assert found.status == Status.CONVERGED
    assert found.signs_known.all()
    truth = reference.coefficients(one.model, one.inputs, one.theta)[compared.index.argsort()]
    torch.testing.assert_close(found.coefficients, truth, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(found.inputs.norm(dim=1), torch.full((n,), math.sqrt(d)).double())
    assert (found.gains.diff() <= 0).all()


def test_the_number_of_inputs_is_found() -> None:
    one = fitted(6, 50, 6 * 50 * 4)
    found = reconstruct(one.model, one.theta)
    assert len(found.inputs) == 6
    assert compare(one.inputs, found.inputs).error < 1e-7


def test_more_inputs_than_dimensions_come_back_up_to_their_signs() -> None:
    one = fitted(30, 20, 30 * 20 * 4)
    found = reconstruct(one.model, one.theta, 30)
    assert compare(one.inputs, found.inputs, up_to_sign=True).recovered == 30
    assert not found.signs_known.any()


@pytest.mark.parametrize("images", [4, None])
def test_another_activation(images: int | None) -> None:
    one = fitted(4, 30, 4 * 30 * 6, activation="relu+tanh")
    found = reconstruct(one.model, one.theta, images)
    compared = compare(one.inputs, found.inputs)
    assert len(found.inputs) == 4
    assert compared.error < 1e-6
    assert found.signs_known.all()
    truth = reference.coefficients(one.model, one.inputs, one.theta)[compared.index.argsort()]
    torch.testing.assert_close(found.coefficients, truth, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_one_input(seed: int) -> None:
    one = fitted(1, 30, 90, seed)
    found = reconstruct(one.model, one.theta, 1)
    assert compare(one.inputs, found.inputs).error < 1e-9


def test_weights_of_another_scale_and_in_float32() -> None:
    one = fitted(4, 40, 4 * 40 * 5)
    model = RandomFeatures((7 * one.model.weights[:]).float())
    theta = RandomFeatures(model.weights[:].double()).fit(one.inputs, one.labels)
    found = reconstruct(model, theta, 4)
    assert compare(one.inputs, found.inputs).error < 1e-7
    truth = reference.coefficients(RandomFeatures(model.weights[:].double()), one.inputs, theta)
    torch.testing.assert_close(found.coefficients.sort().values, truth.sort().values, rtol=1e-5, atol=0)


def test_noise_on_theta_leaves_a_residual_and_inputs_nearly_as_good() -> None:
    one = fitted(5, 50, 5 * 50 * 10)
    noise = torch.randn(one.theta.shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    theta = one.theta + 1e-2 * one.theta.norm() / math.sqrt(len(one.theta)) * noise
    found = reconstruct(one.model, theta, 5)
    assert found.residual == pytest.approx(1e-2, rel=0.2)
    assert found.status == Status.MAX_ITERATIONS
    assert compare(one.inputs, found.inputs).error < 1e-2
    assert "does NOT explain θ: 9" in repr(found)


@pytest.mark.parametrize("seed", range(3))
def test_where_the_even_model_explains_theta_with_wrong_inputs_the_residual_says_so(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fewer features than unknowns, else refused: with signs left open and its offset free, the even model explains
    anything."""
    monkeypatch.setattr(results, "_PER_UNKNOWN", 0.1)
    one = fitted(2, 50, 125, seed)
    found = reconstruct(one.model, one.theta, 2)
    right = compare(one.inputs, found.inputs).error < 1e-3
    assert (found.residual < 1e-3) == right == (found.status == Status.CONVERGED)


def test_theta_of_other_features_is_not_explained() -> None:
    one = fitted(4, 30, 4 * 30 * 6)
    other = RandomFeatures.from_seed(one.model.p, 30, seed=99)
    found = reconstruct(other, one.theta, 4)
    assert found.residual > 0.3
    assert found.status == Status.MAX_ITERATIONS


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"theta": torch.ones(7).double()}, ValueError, "an entry for each of the 300 features"),
        ({"theta": torch.full((300,), torch.nan).double()}, ValueError, "NaN or infinite"),
        ({"theta": torch.zeros(300)}, ValueError, "nothing was learned"),
        ({"theta": torch.ones(300, dtype=torch.int64)}, TypeError, "float32 or float64, not torch.int64"),
        ({"images": 26}, ValueError, "26 inputs of 10 numbers takes at least 324 features"),
        ({"images": 0}, ValueError, "images must be at least 1"),
        ({"seed": -1}, ValueError, "seed"),
        ({"model": torch.nn.Linear(10, 300)}, TypeError, "RandomFeatures or a Head, not Linear"),
        (
            {"model": RandomFeatures.from_seed(8, 10), "theta": torch.ones(8)},
            ValueError,
            "3 inputs of 10 numbers takes at least 48",
        ),
    ],
)
def test_what_is_wrong_is_said_before_any_work(changes: dict[str, Any], error: type[Exception], message: str) -> None:
    arguments = {"model": RandomFeatures.from_seed(300, 10), "theta": torch.ones(300).double(), "images": 3, **changes}
    with pytest.raises(error, match=message):
        reconstruct(**arguments)


@pytest.mark.parametrize("seed", range(42, 46))
def test_two_inputs_that_do_for_one_are_one(seed: int) -> None:
    """With more inputs than there are, two on the same side of every row explain as much as their sum: with these
    seeds that came out, to a residual of 1e-11."""
    one = fitted(2, 20, 400)
    found = reconstruct(one.model, one.theta, seed=seed)
    assert len(found.inputs) == 2
    assert compare(one.inputs, found.inputs).error < 1e-8


def test_an_input_that_was_there_twice_comes_out_once() -> None:
    one = fitted(3, 20, 500)
    theta = torch.tensor([1.0, -0.5, 2.0, 0.7]).double() @ one.model.features(torch.cat([one.inputs, one.inputs[:1]]))
    found = reconstruct(one.model, theta, 4)
    assert len(found.inputs) == 3
    assert compare(one.inputs, found.inputs).error < 1e-8


def test_too_little_memory_is_told_before_work(monkeypatch: pytest.MonkeyPatch) -> None:
    one = fitted(2, 20, 400)
    monkeypatch.setattr(memory, "available_memory", lambda: 20_000)
    with pytest.raises(ValueError, match=r"2 inputs of 20 numbers from 400 features takes about .* kB of memory"):
        reconstruct(one.model, one.theta, 2)
    with pytest.raises(ValueError, match=r"1\.6e\+04 GB|16000 GB of memory; .* are free"):
        RandomFeatures.from_seed(10**8, 10**4)


@pytest.mark.parametrize("seed", range(2))
def test_a_number_that_is_not_known_is_found_from_few_parameters(seed: int) -> None:
    one = fitted(10, 50, 1250, seed)
    found = reconstruct(one.model, one.theta)
    assert len(found.inputs) == 10
    assert compare(one.inputs, found.inputs).error < 1e-7


@pytest.mark.parametrize("factor", [1e-300, 1e-30, 1e-8, 1e12, 1e300])
@pytest.mark.parametrize("images", [2, None])
def test_the_scale_of_the_parameters_does_not_matter(factor: float, images: int | None) -> None:
    one = fitted(2, 12, 200)
    found, expected = reconstruct(one.model, one.theta * factor, images), reconstruct(one.model, one.theta, images)
    assert found.status == Status.CONVERGED
    assert compare(one.inputs, found.inputs).error < 1e-8
    torch.testing.assert_close(found.coefficients / factor, expected.coefficients, rtol=1e-6, atol=0)

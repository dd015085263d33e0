"""Splitting into halves, and products of them, against float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from memrecon_fast.ops import halves
from memrecon_fast.ops.halves import Sums, plain
from tests.helpers.against_plain_halves import SPECIAL, random_numbers, special_rows, special_sums

FLOAT32, BFLOAT16_HALVES, TF32 = 2.0**-24, 2.0**-18, 2.0**-11
"""What a number is rounded by, relative to it: by half a unit in the last place, at most."""


def product(a: Tensor, weights: Tensor) -> Tensor:
    left, right = plain.split(a, a.shape[1]), plain.split_weights(weights[:, None])
    sums = halves.multiply(left.values, right.values.T)
    return plain.finish(Sums(sums, left.exponents, right.exponents))


def error(found: Tensor, exact: Tensor) -> float:
    return float((found.double() - exact).norm() / exact.norm())


@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e-30, 1e30])
@pytest.mark.parametrize(("rows", "inputs", "outputs"), [(64, 1024, 100), (5, 12288, 64), (3, 1, 7)])
def test_a_product_has_the_error_of_float32(rows: int, inputs: int, outputs: int, scale: float) -> None:
    """Activations as those behind a LeakyReLU. Of other splits: 4e-6 (bfloat16), 2e-5 and worse (unscaled float16)."""
    generator = torch.Generator().manual_seed(0)
    a = torch.nn.functional.leaky_relu(torch.randn(rows, inputs, generator=generator)) * scale
    weights = torch.randn(outputs, inputs, generator=generator) * (2 / inputs) ** 0.5
    exact = a.double() @ weights.double().T
    found = error(product(a, weights), exact)
    print(f"{rows} x {inputs} x {outputs}, {scale:g}: {found:.1e}; float32 {error(a @ weights.T, exact):.1e}")
    # three roundings of 2^-22 at most, which are no more than half of that in the mean; and those of the sums, which
    # are of three times as many numbers: a random walk of √(3·inputs) steps, but for blocks that are summed apart
    assert found < 1.5 * 2.0**-22 + 0.5 * FLOAT32 * (3 * inputs) ** 0.5
    assert found < BFLOAT16_HALVES < TF32 / 100


def test_each_half_counts() -> None:
    """Were one of the three products left out, or two exchanged, the error would be that of a single half."""
    a, weights = random_numbers(4, 64).sigmoid(), random_numbers(8, 64).sigmoid()
    exact = a.double() @ weights.double().T
    left, right = plain.split(a, 64), plain.split_weights(weights[:, None])
    for part in (slice(64, 128), slice(128, 192)):
        without = left.values.clone()
        without[:, part] = 0
        sums = Sums(halves.multiply(without, right.values.T), left.exponents, right.exponents)
        assert error(plain.finish(sums), exact) > 1e-5
    assert error(product(a, weights), exact) < 2e-7


def test_a_number_is_kept_to_22_bits() -> None:
    numbers = random_numbers(50, 33)
    split = plain.split(numbers, 33)
    high, again, low = split.values.double().chunk(3, dim=1)
    scaled = numbers.double() * torch.exp2(split.exponents.double())[:, None]
    assert torch.equal(high, again)
    largest = scaled.abs().amax(dim=1)
    assert ((largest >= 2**14) & (largest < 2**15)).all()
    apart = (high + low - scaled).abs()
    assert (apart <= torch.maximum(scaled.abs() * 2.0**-22, largest[:, None] * 2.0**-39)).all()


def test_of_a_row_with_infinity_or_nan_all_is_nan_and_no_other_row_changes() -> None:
    numbers, weights = torch.rand(4, 8), torch.rand(5, 8)
    before = product(numbers, weights)
    for value in (torch.inf, -torch.inf, torch.nan):
        broken = numbers.clone()
        broken[1, 3] = value
        found = product(broken, weights)
        assert found[1].isnan().all()
        assert torch.equal(found[[0, 2, 3]], before[[0, 2, 3]])


@pytest.mark.parametrize("value", [value for value in SPECIAL if value == value and abs(value) < torch.inf])
def test_huge_tiny_and_denormal_numbers(value: float) -> None:
    """One times the number, and the number times one."""
    number, one = torch.tensor([[value]]), torch.ones(1, 1)
    for found in (product(number, one), product(one, number)):
        assert found.item() == pytest.approx(number.item(), rel=2.0**-22, abs=0)


def test_powers_of_two_that_float32_has_not_are_multiplied_by_in_two_steps() -> None:
    sums = Sums(torch.tensor([[2.0**100], [2.0**-100]]), *(torch.tensor(one).int() for one in ([110, -114], [110])))
    assert plain.finish(sums)[0].item() == 2.0**-120
    assert plain.finish(sums)[1].item() == 2.0**-96


def test_finish_against_float64() -> None:
    for sums in special_sums():
        scale = torch.exp2(-(sums.exponents[:, None].double() + sums.of_outputs))
        exact = (sums.sums.double() * scale).float()
        if sums.bias is not None:
            exact = exact + sums.bias
        if sums.slope is not None:
            slope = sums.slope
            exact = torch.where(exact > 0, exact, exact * slope) if slope != 0 else exact.relu()
        # what is below the normal numbers may have been rounded twice
        torch.testing.assert_close(plain.finish(sums), exact, rtol=0, atol=3e-45, equal_nan=True)


def test_segments_are_next_to_one_another() -> None:
    values = plain.split(special_rows().nan_to_num(1.0, 1.0, 1.0)[:6], 2).values.view(6, 2, 3, 2)
    assert torch.equal(values[:, :, 0], values[:, :, 1])
    weights = torch.rand(3, 2, 2)
    right = plain.split_weights(weights).values.view(3, 2, 3, 2)
    assert torch.equal(right[:, :, 0], right[:, :, 2])
    whole = plain.split_weights(weights.flatten(1)[:, None]).values.view(3, 3, 2, 2)
    assert torch.equal(whole, right.transpose(1, 2))


def test_what_does_not_fit_together_is_refused() -> None:
    exponents, of_outputs = torch.zeros(4).int(), torch.zeros(3).int()
    for sums, others in (
        (torch.rand(6, 4).T, ()),
        (torch.rand(4, 5), ()),
        (torch.rand(5, 6), ()),
        (torch.rand(4, 6), (torch.rand(2),)),
        (torch.rand(4, 6), (torch.rand(6)[::2],)),
        (torch.rand(4, 6), (None, torch.rand(2))),
    ):
        with pytest.raises(ValueError, match=r"^(sums|exponents|bias|slope) must be contiguous"):
            Sums(sums, exponents, of_outputs, *others)

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from memrecon_fast.reconstruction import Scaling

PIXELS = Scaling("pixels", (0.5, 0.4, 0.3), (0.25, 0.5, 0.2))


def some(count: int = 5) -> Tensor:
    return torch.rand(count, 3, 4, 6, generator=torch.Generator().manual_seed(3))


def test_standardised_inputs_have_their_length() -> None:
    inputs = Scaling().inputs_of(some())
    assert inputs.shape == (5, 72)
    torch.testing.assert_close(inputs.norm(dim=1), torch.full((5,), math.sqrt(72)).double())
    torch.testing.assert_close(inputs.mean(dim=1), torch.zeros(5).double(), atol=1e-14, rtol=0)


def test_pixels_are_less_their_mean_over_their_deviation() -> None:
    pictures = some(1)
    found = PIXELS.inputs_of(pictures).reshape(1, 3, 4, 6)
    torch.testing.assert_close(found[0, 1], (pictures[0, 1].double() - 0.4) / 0.5)


@pytest.mark.parametrize("scaling", [Scaling(), PIXELS, Scaling("pixels")])
def test_an_input_of_any_length_is_its_picture_again(scaling: Scaling) -> None:
    pictures = some()
    factors = torch.tensor([0.1, 1.0, 3.0, 0.5, 20.0]).double()[:, None]
    again = scaling.pictures_like(factors * scaling.inputs_of(pictures), pictures)
    torch.testing.assert_close(again, pictures.double())


def test_a_negative_is_not_its_picture() -> None:
    pictures = some()
    again = Scaling().pictures_like(-Scaling().inputs_of(pictures), pictures)
    assert ((again - pictures).square().flatten(1).mean(1) > 0.05).all()


@pytest.mark.parametrize("scaling", [Scaling(), PIXELS, Scaling("pixels")])
def test_without_the_truth_a_picture_fills_the_scale(scaling: Scaling) -> None:
    shown = scaling.pictures_of(scaling.inputs_of(some()), (3, 4, 6))
    assert shown.min() >= 0
    torch.testing.assert_close(shown.flatten(1).max(1).values, torch.ones(5).double())


def test_pixels_without_a_mean_are_right_up_to_brightness() -> None:
    pictures = some()
    shown = Scaling("pixels").pictures_of(0.01 * Scaling("pixels").inputs_of(pictures), (3, 4, 6))
    torch.testing.assert_close(shown, pictures.double() / pictures.flatten(1).max(1).values[:, None, None, None])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("standardized",), "scaling must be one of"),
        (("pixels", (0.5, 0.5), (0.2,)), "as many means as deviations"),
        (("pixels", (0.5,), (0.0,)), "above 0"),
        (("pixels", (math.nan,), (1.0,)), "finite"),
    ],
)
def test_what_is_no_scaling(arguments: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Scaling(*arguments)


def test_what_cannot_be_scaled() -> None:
    pictures = some(3)
    pictures[1] = 0.25
    with pytest.raises(ValueError, match="picture 1 has one value in all pixels"):
        Scaling().inputs_of(pictures)
    with pytest.raises(ValueError, match="3 means, and pictures of 1 channels"):
        PIXELS.check((1, 4, 6))

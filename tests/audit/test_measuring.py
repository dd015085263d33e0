from __future__ import annotations

import json
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from memrecon_fast.audit import measuring
from memrecon_fast.audit.analysis.reconstruction_error import in_words, misses_members, warning_of
from memrecon_fast.audit.measuring import measure
from memrecon_fast.autoencoders.adapting import adapt
from memrecon_fast.images.scan import Images, scan
from memrecon_fast.images.sources import Source
from tests.helpers.auditing import images_of
from tests.helpers.memorised import Memorised, make_autoencoder

IMAGENET = [torch.tensor(three).view(3, 1, 1) for three in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))]
Change = Callable[[Tensor], Tensor]


class Expecting(nn.Module):
    """A model that was trained on other pixels: `to_unit` makes [0, 1] of them, `back` undoes that."""

    def __init__(self, model: nn.Module, to_unit: Change, back: Change) -> None:
        super().__init__()
        self.trained, self.to_unit, self.back = model, to_unit, back

    def forward(self, x: Tensor) -> Tensor:
        return self.back(self.trained(self.to_unit(x)))


def splits_of(memorised: Memorised) -> dict[str, Images]:
    return {"members": images_of(memorised.members), "controls": images_of(memorised.controls)}


def test_what_a_trained_model_makes_of_the_images_as_they_are(memorised: Memorised) -> None:
    found = measure(memorised.autoencoder, splits_of(memorised))
    with torch.no_grad():
        for split, images in (("members", memorised.members), ("controls", memorised.controls)):
            mse = (memorised.autoencoder(images) - images).square().flatten(1).mean(1)
            assert found[split]["images"] == 16
            assert found[split]["mean"] == pytest.approx(mse.mean().item(), rel=1e-3)  # float32 against float64 sums
            assert found[split]["median"] == pytest.approx(mse.double().quantile(0.5).item(), rel=1e-3)
            assert found[split]["above"] == int((mse > 1e-2).sum())
    assert found["members"]["mean"] < 1e-5 < found["controls"]["mean"]
    assert found["hint"] is None
    assert not misses_members(found)
    assert warning_of(found) is None
    assert f"members {found['members']['mean']:.1e}, controls {found['controls']['mean']:.1e}" in in_words(found)
    for mean, little in ((1e-5, True), (1e-7, False), (1e-9, False)):  # what the model misses against what is accurate
        words = in_words(found | {"members": found["members"] | {"mean": mean}})
        assert ("A recovery counts as accurate below 1e-07" in words) == little
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_a_model_that_returns_what_it_is_given_is_named(memorised: Memorised) -> None:
    found = measure(nn.Identity().eval(), splits_of(memorised))
    assert (found["members"]["mean"], found["controls"]["mean"]) == (0, 0)
    assert "returns images as they are" in (warning_of(found) or "")
    nearly = measure(lambda images: (2 * images - 0.7) / 2 + 0.35, splits_of(memorised))
    assert 0 < nearly["members"]["mean"] < 1e-14
    assert "returns images as they are" in (warning_of(nearly) or "")


@pytest.mark.parametrize(
    ("options", "to_unit", "back"),
    [
        ("--pixel-range -1,1", lambda x: (x + 1) / 2, lambda x: 2 * x - 1),
        ("--pixel-range 0,255", lambda x: x / 255, lambda x: 255 * x),
        ("--channels bgr", lambda x: x.flip(1), lambda x: x.flip(1)),
        ("--pixel-range -1,1 --channels bgr", lambda x: (x.flip(1) + 1) / 2, lambda x: 2 * x.flip(1) - 1),
        (
            "--mean 0.485,0.456,0.406 --std 0.229,0.224,0.225",
            lambda x: x * IMAGENET[1] + IMAGENET[0],
            lambda x: (x - IMAGENET[0]) / IMAGENET[1],
        ),
    ],
)
def test_a_model_of_other_pixels_is_told_and_which_ones(
    memorised: Memorised, options: str, to_unit: Change, back: Change
) -> None:
    model = Expecting(memorised.autoencoder, to_unit, back).eval()
    found = measure(model, splits_of(memorised))
    assert misses_members(found)
    assert found["hint"]["options"] == options
    assert found["hint"]["mean"] < 1e-5
    assert options in (warning_of(found) or "")


def test_options_that_were_wrong_are_told_too(memorised: Memorised) -> None:
    found = measure(adapt(memorised.autoencoder, pixel_range=(-1.0, 1.0)), splits_of(memorised))
    assert found["hint"]["options"] == "--pixel-range 0,1"


def test_a_model_without_its_weights_has_no_hint_but_a_warning(memorised: Memorised) -> None:
    torch.manual_seed(1)
    found = measure(make_autoencoder().eval(), splits_of(memorised))
    assert found["hint"] is None
    assert found["members"]["above"] == 16
    warning = warning_of(found) or ""
    assert warning.startswith("The model does not reconstruct the members")
    for words in ("16 of 16", "--weights", "--pixel-range"):
        assert words in warning


def test_dark_images_are_missed_by_a_model_that_gives_black_though_the_error_is_small(memorised: Memorised) -> None:
    dark = {"members": images_of(0.1 * memorised.members)}
    found = measure(lambda x: 0 * x, dark)
    assert found["members"]["mean"] < 1e-2
    assert misses_members(found)


def test_what_is_not_finite_is_said(memorised: Memorised) -> None:
    bright = memorised.members.flatten(1).mean(1).median().item()

    def overflows(x: Tensor) -> Tensor:
        return torch.where(x.mean(dim=(1, 2, 3), keepdim=True) > bright, x * 1e30, x) ** 3

    found = measure(overflows, splits_of(memorised))
    assert found["members"]["mean"] is None
    assert found["members"]["median"] is None or math.isfinite(found["members"]["median"])
    assert "not finite" in (warning_of(found) or "")
    json.dumps(found, allow_nan=False)


def test_at_most_so_many_images_evenly_spaced_and_without_those_that_cannot_be_read(
    memorised: Memorised, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = (memorised.members * 255).round().byte().permute(0, 2, 3, 1).numpy()
    gone: set[int] = set()
    asked: list[int] = []

    def read(index: int) -> object:
        asked.append(index)
        if index in gone:
            raise ValueError("it is gone")
        return pixels[index]

    members = scan(Source(tuple(f"{i}.png" for i in range(16)), read))  # type: ignore[arg-type]
    monkeypatch.setattr(measuring, "MAX_IMAGES", 5)
    gone.add(6)
    asked.clear()
    found = measure(memorised.autoencoder, {"members": members})
    assert asked == [0, 3, 6, 9, 12]
    assert found["members"]["images"] == 4

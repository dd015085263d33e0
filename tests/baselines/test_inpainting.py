from __future__ import annotations

import pytest
import torch
from skimage.restoration import inpaint_biharmonic

from memrecon_fast.baselines.inpainting import inpaint
from memrecon_fast.degradation import MASKS, erase, make_mask

SHAPE = (3, 16, 16)


def ramps() -> torch.Tensor:
    """Images that grow evenly along both sides: they solve the biharmonic equation."""
    side = torch.linspace(0, 1, 16)
    return torch.stack([0.5 * side[:, None] + 0.25 * side + 0.1 * channel for channel in range(3)])[None]


def test_what_solves_the_equation_comes_back() -> None:
    images = ramps()
    mask = make_mask("center", SHAPE)
    filled = inpaint(erase(images, mask), mask[None])
    assert filled.dtype == torch.float32
    torch.testing.assert_close(filled, images, rtol=0, atol=1e-4)  # scikit-image solves it in float32


@pytest.mark.parametrize("name", MASKS)
def test_kept_pixels_stay_and_erased_ones_are_those_of_scikit_image(name: str) -> None:
    images = torch.rand(3, *SHAPE, generator=torch.Generator().manual_seed(0))
    mask = make_mask(name, SHAPE)
    filled = inpaint(erase(images, mask), mask.expand(3, *SHAPE))
    assert torch.equal(filled[:, mask], images[:, mask])
    assert filled.isfinite().all()
    for image, ours in zip(images, filled, strict=True):
        theirs = inpaint_biharmonic(image.numpy(), ~mask[0].numpy(), channel_axis=0)
        assert torch.equal(ours, torch.from_numpy(theirs).float())


def test_what_is_below_the_mask_does_not_matter() -> None:
    mask = make_mask("half", SHAPE)
    images = ramps()
    other = images.masked_fill(~mask, 7.0)
    assert torch.equal(inpaint(images, mask[None]), inpaint(other, mask[None]))


def test_each_channel_may_have_a_mask_of_its_own() -> None:
    images = ramps()
    mask = torch.stack([make_mask(name, SHAPE)[0] for name in ("center", "half", "stripes")])
    mask[1] = True
    filled = inpaint(erase(images, mask), mask[None])
    for channel in range(3):
        one = inpaint(erase(images, mask)[:, channel, None], mask[None, channel, None])
        assert torch.equal(filled[:, channel], one[:, 0])
    assert torch.equal(filled[0, 1], images[0, 1])


def test_an_image_is_filled_the_same_whatever_the_others_are() -> None:
    images = torch.rand(4, *SHAPE, generator=torch.Generator().manual_seed(1))
    masks = torch.stack([make_mask(name, SHAPE) for name in MASKS[:4]])
    together = inpaint(erase(images, masks), masks)
    for i in range(4):
        assert torch.equal(inpaint(erase(images, masks)[i : i + 1], masks[i : i + 1])[0], together[i])


def test_a_channel_of_which_nothing_is_kept_stays_as_it_is() -> None:
    images = ramps()
    mask = make_mask("center", SHAPE)
    mask[1] = False
    filled = inpaint(erase(images, mask), mask[None])
    assert torch.equal(filled[0, 1], torch.zeros(16, 16))
    torch.testing.assert_close(filled[0, 0], images[0, 0], rtol=0, atol=1e-4)
    nothing = torch.zeros_like(mask)
    assert torch.equal(inpaint(images, nothing[None]), images)

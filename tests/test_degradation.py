from __future__ import annotations

import itertools

import pytest
import torch

from memrecon_fast import degradation

SHAPE = (3, 64, 48)
KEPT = {"center": 0.75, "half": 0.5, "random-50": 0.5, "random-80": 0.2, "stripes": 0.5, "corner": 0.25}


@pytest.mark.parametrize("name", degradation.MASKS)
def test_named_masks_keep_what_they_say(name: str) -> None:
    mask = degradation.make_mask(name, SHAPE)
    assert mask.shape == SHAPE
    assert mask.dtype == torch.bool
    # 3072 coins: standard deviation below 0.01
    assert mask.float().mean().item() == pytest.approx(KEPT[name], abs=0.03 if "random" in name else 1e-6)
    assert torch.equal(mask[0], mask[1])


def test_named_masks_have_the_geometry_they_say() -> None:
    masks = {name: degradation.make_mask(name, SHAPE)[0] for name in degradation.MASKS}
    assert not masks["center"][16:48, 12:36].any()
    assert masks["half"][:32].all()
    assert not masks["half"][32:].any()
    assert masks["corner"][:32, :24].all()
    assert masks["stripes"][:4].all()
    assert not masks["stripes"][4:8].any()
    assert all(not torch.equal(a, b) for a, b in itertools.combinations(masks.values(), 2))


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 2, 2), (1, 5, 7)])
@pytest.mark.parametrize("name", degradation.MASKS)
def test_small_and_odd_images(name: str, shape: tuple[int, int, int]) -> None:
    assert degradation.make_mask(name, shape).shape == shape


def test_random_masks_depend_on_the_seed_alone() -> None:
    first, again, other = (degradation.make_mask("random-80", SHAPE, seed) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_erase_sets_erased_entries_to_zero_and_leaves_the_images_alone() -> None:
    images = torch.rand(4, *SHAPE) + 0.1
    before = images.clone()
    mask = degradation.make_mask("half", SHAPE)
    degraded = degradation.erase(images, mask)
    assert torch.equal(degraded, images * mask)
    assert torch.equal(images, before)


def test_noise_has_its_deviation_and_does_not_depend_on_the_batch() -> None:
    images = torch.rand(6, *SHAPE)
    mask = degradation.make_mask("random-50", SHAPE)
    together = degradation.erase(images, mask, noise_std=0.02, seed=5)
    apart = torch.cat([degradation.erase(images[i : i + 2], mask, 0.02, seed=5, first_index=i) for i in (0, 2, 4)])
    assert torch.equal(together, apart)
    noise = together - degradation.erase(images, mask)
    assert noise.std().item() == pytest.approx(0.02, rel=0.02)  # 55,296 draws: 0.3 % standard error
    assert noise[:, ~mask].std().item() == pytest.approx(0.02, rel=0.03)  # erased entries are noisy too, (3)
    assert not torch.equal(noise[0], noise[1])
    assert not torch.equal(together, degradation.erase(images, mask, noise_std=0.02, seed=6))


def test_bad_arguments_are_named() -> None:
    images = torch.rand(2, 3, 8, 8)
    with pytest.raises(ValueError, match=r"mask must be one of 'center', .* not 'centre'"):
        degradation.make_mask("centre", SHAPE)
    with pytest.raises(ValueError, match=r"images \(C, H, W\), not for \(64, 64\)"):
        degradation.make_mask("half", (64, 64))
    with pytest.raises(TypeError, match=r"mask must be a boolean tensor .* not torch.float32"):
        degradation.erase(images, torch.ones(3, 8, 8))
    with pytest.raises(ValueError, match=r"mask of shape \(3, 8, 9\) does not broadcast"):
        degradation.erase(images, torch.ones(3, 8, 9, dtype=torch.bool))
    with pytest.raises(ValueError, match="noise_std must be finite and at least 0"):
        degradation.erase(images, torch.ones(3, 8, 8, dtype=torch.bool), noise_std=-0.1)
    with pytest.raises(TypeError, match=r"images must be a floating-point tensor .* not torch.uint8"):
        degradation.erase(images.byte(), torch.ones(3, 8, 8, dtype=torch.bool))
    with pytest.raises(ValueError, match="seed must be at least 0 and at most"):
        degradation.make_mask("random-50", SHAPE, seed=2**64)

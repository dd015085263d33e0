from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from memrecon_fast.audit.store.pictures import (
    GROUPS,
    IN_EACH_GROUP,
    LARGEST_SIDE,
    Picture,
    candidates,
    choose,
    make_picture,
    read_pictures,
    write_pictures,
)
from memrecon_fast.metrics import ACCURATE_MSE, APPROXIMATE_MSE

RNG = np.random.default_rng(0)


def random_errors(count: int) -> NDArray[np.float64]:
    """Over all orders of magnitude, or between the thresholds; with equal ones, with 0, and with infinite ones."""
    lowest, highest = (-14, 0) if RNG.random() < 0.5 else np.log10([ACCURATE_MSE, APPROXIMATE_MSE])
    errors = 10.0 ** RNG.uniform(lowest, highest, count)
    errors = errors[RNG.integers(0, count, count)] if RNG.random() < 0.5 else errors
    for value in (0.0, np.inf, ACCURATE_MSE, APPROXIMATE_MSE):
        errors[RNG.random(count) < RNG.choice([0, 0.1, 0.5])] = value
    return errors


def test_the_lowest_the_highest_and_those_near_a_threshold_are_chosen() -> None:
    errors = np.array([0.3, 1e-11, 6e-4, 1e-3, 0.4, 2e-7, 1e-12, 1e-9, 0.1, 4e-4, 1e-10, 0.2, 3e-9, 0.05, 1e-5])
    chosen = choose(errors)
    groups = {group: [at for at, name in chosen.items() if name == group] for group in GROUPS}
    assert groups["best"] == [6, 1, 10, 7]  # in the order of their errors
    assert groups["borderline"] == [5, 9, 2, 3]
    assert groups["worst"] == [8, 11, 0, 4]
    assert list(chosen) == groups["best"] + groups["borderline"] + groups["worst"]


def test_of_equal_errors_the_first_are_chosen_and_no_image_twice() -> None:
    chosen = choose(np.full(20, 0.01))
    assert list(chosen) == [0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19]
    assert list(chosen.values()) == [group for group in GROUPS for _ in range(IN_EACH_GROUP)]


@pytest.mark.parametrize("count", range(14))
def test_few_images_are_all_chosen(count: int) -> None:
    for errors in (RNG.random(count), np.zeros(count), np.full(count, np.inf)):
        chosen = choose(errors)
        assert len(chosen) == min(count, 3 * IN_EACH_GROUP)
        if count <= 3 * IN_EACH_GROUP:
            assert sorted(chosen) == list(range(count))
        for number, group in enumerate(("best", "worst", "borderline")):  # in this order they are filled
            assert list(chosen.values()).count(group) == min(max(count - number * IN_EACH_GROUP, 0), IN_EACH_GROUP)


def test_the_groups_are_what_they_are_called() -> None:
    for _ in range(300):
        errors = random_errors(int(RNG.integers(12, 60)))
        chosen = choose(errors)
        best, borderline, worst = ([at for at, name in chosen.items() if name == group] for group in GROUPS)
        assert len({*best, *borderline, *worst}) == 3 * IN_EACH_GROUP
        others = sorted(set(range(len(errors))) - {*best, *worst})
        assert errors[best].max() <= errors[others].min() if others else True
        assert errors[worst].min() >= errors[others].max() if others else True
        with np.errstate(divide="ignore"):
            ratios = np.abs(np.log(errors[:, None]) - np.log([ACCURATE_MSE, APPROXIMATE_MSE])).min(axis=1)
        left = sorted(set(others) - set(borderline))
        assert not left or ratios[borderline].max() <= ratios[left].min()


def test_what_may_be_chosen_of_the_whole_is_a_candidate_of_every_part() -> None:
    for _ in range(500):
        count = int(RNG.integers(1, 120))
        errors = random_errors(count)
        parts = RNG.integers(0, RNG.integers(1, 6), count)
        kept: set[int] = set()
        for part in range(parts.max() + 1):
            indices = np.flatnonzero(parts == part)
            kept |= {int(indices[position]) for position in candidates(errors[indices])}
        assert set(choose(errors)) <= kept


def test_candidates_of_candidates_and_more_are_enough() -> None:
    """As a part grows, what was dropped of it once does not come back."""
    for _ in range(200):
        count = int(RNG.integers(20, 200))
        errors = random_errors(count)
        kept = np.empty(0, np.int64)
        for arriving in np.array_split(RNG.permutation(count), 5):
            together = np.sort(np.concatenate([kept, arriving]))
            kept = together[sorted(candidates(errors[together]))]
        assert set(choose(errors)) <= set(kept.tolist())


def test_candidates_are_few() -> None:
    assert max(len(candidates(random_errors(1000))) for _ in range(20)) <= 6 * IN_EACH_GROUP


def test_a_picture_holds_four_images_in_bytes() -> None:
    images = torch.rand(3, 3, 5, 7)
    mask = torch.rand(3, 5, 7) < 0.5
    picture = make_picture(images[0], images[1], images[2], mask)
    assert picture.shape == (4, 3, 5, 7)
    assert picture.dtype == np.uint8
    np.testing.assert_array_equal(picture[:3], (images * 255).round().byte().numpy())
    np.testing.assert_array_equal(picture[3], np.where(mask, 255, 0))


def test_a_picture_of_a_diverged_estimate_is_black_or_white() -> None:
    lost = torch.tensor([float("nan"), float("inf"), -float("inf"), 2.0, -0.1, 1.0]).view(1, 2, 3)
    for shown in make_picture(lost, lost, lost, lost):
        assert shown.tolist() == [[[0, 255, 0], [255, 0, 255]]]


@pytest.mark.parametrize(
    ("size", "reduced"),
    [
        ((LARGEST_SIDE, LARGEST_SIDE), (LARGEST_SIDE, LARGEST_SIDE)),
        ((4 * LARGEST_SIDE, 2 * LARGEST_SIDE), (LARGEST_SIDE, LARGEST_SIDE // 2)),
        ((1, LARGEST_SIDE + 1), (1, LARGEST_SIDE)),
        ((10 * LARGEST_SIDE, 3), (LARGEST_SIDE, 1)),
    ],
)
def test_large_images_are_reduced_by_averaging(size: tuple[int, int], reduced: tuple[int, int]) -> None:
    image = torch.rand(3, *size)
    picture = make_picture(image, image, image, image > 0.5)
    assert picture.shape == (4, 3, *reduced)
    assert abs(picture[0].mean() / 255 - image.mean().item()) < 0.02
    block = image[:, : size[0] // reduced[0], : size[1] // reduced[1]]
    if size[0] % reduced[0] == 0 == size[1] % reduced[1]:
        np.testing.assert_allclose(picture[0][:, 0, 0], 255 * block.mean(dim=(1, 2)), atol=0.51)


def pictures_of(*indices: int) -> list[Picture]:
    return [Picture(index, *RNG.integers(0, 256, (4, 1, 5, 9), np.uint8)) for index in indices]


def test_pictures_survive_their_file(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.npz"
    written = pictures_of(3, 1, 2)
    write_pictures(path, written)
    read = read_pictures(path)
    assert [picture.index for picture in read] == [1, 2, 3]
    by_index = {picture.index: picture for picture in written}
    for picture in read:
        for name in ("original", "degraded", "recovered", "mask"):
            np.testing.assert_array_equal(getattr(picture, name), getattr(by_index[picture.index], name))
    content = path.read_bytes()
    write_pictures(path, written[::-1])
    assert path.read_bytes() == content
    assert [file.name for file in path.parent.iterdir()] == ["a.npz"]


def test_a_file_of_pictures_is_read_whole_or_refused(tmp_path: Path) -> None:
    assert read_pictures(tmp_path / "absent.npz") == []
    write_pictures(tmp_path / "a.npz", pictures_of(1, 2))
    whole = (tmp_path / "a.npz").read_bytes()
    path = tmp_path / "bad.npz"
    for bad in (b"", b"nothing", whole[: len(whole) // 2], whole[:60] + bytes(60) + whole[120:]):
        path.write_bytes(bad)
        with pytest.raises(ValueError, match=r"bad\.npz cannot be read as pictures of an audit"):
            read_pictures(path)
    np.savez(path, index=np.array([1]))
    with pytest.raises(ValueError, match=r"bad\.npz cannot be read as pictures of an audit: .*original"):
        read_pictures(path)

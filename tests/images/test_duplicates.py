from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from memrecon_fast import metrics
from memrecon_fast.images import duplicates
from memrecon_fast.images.duplicates import find_near_duplicates
from memrecon_fast.images.scan import Images, scan
from memrecon_fast.images.sources import Source, from_array

RNG = np.random.default_rng(0)
NEAR = metrics.APPROXIMATE_MSE


def images_of(array: np.ndarray) -> Images:
    """Of (N, C, H, W)."""
    channels_last: list[np.ndarray] = list(array.transpose(0, 2, 3, 1))
    return scan(Source(tuple(map(str, range(len(array)))), channels_last.__getitem__))


def at_mse(image: np.ndarray, mse: float) -> np.ndarray:
    """The image with noise that makes it differ by this MSE."""
    noise = RNG.standard_normal(image.shape)
    noisy: np.ndarray = image + noise * np.sqrt(mse / np.square(noise).mean())
    return noisy.astype(np.float32)


def make(count: int, shape: tuple[int, int, int] = (3, 16, 16)) -> np.ndarray:
    """Images that have room for noise."""
    return RNG.uniform(0.2, 0.8, (count, *shape)).astype(np.float32)


def by_brute_force(members: Images, controls: Images) -> dict[int, int]:
    found = {}
    for control in controls.usable():
        image = controls[control]
        mse = {member: metrics.mse(members[member][None], image[None]).item() for member in members.usable()}
        nearest = min(mse, key=lambda member: mse[member])
        if mse[nearest] < NEAR:
            found[control] = nearest
    return found


@pytest.mark.parametrize("shape", [(3, 16, 16), (1, 11, 13), (3, 5, 3), (1, 1, 1), (3, 8, 40), (3, 7, 17)])
def test_all_pairs_below_the_limit_are_found_whatever_the_shape(shape: tuple[int, int, int]) -> None:
    members = make(40, shape)
    controls = make(40, shape)
    for i, share in enumerate((0, 0.001, 0.3, 0.9, 0.99, 0.999, 1.001, 1.01, 1.1, 2)):
        controls[2 * i] = at_mse(members[3 * i], share * NEAR)
        controls[2 * i + 1] = members[3 * i] + np.sqrt(share * NEAR)  # the same everywhere: the bound is the MSE itself
    of_members, of_controls = images_of(members), images_of(controls)
    found = find_near_duplicates(of_members, of_controls)
    assert found == by_brute_force(of_members, of_controls)
    assert {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11} <= set(found)
    assert list(found) == sorted(found)


@pytest.mark.parametrize("shape", [(3, 16, 16), (1, 11, 13), (3, 5, 3), (1, 1, 1), (3, 7, 17)])
def test_thumbnails_are_never_further_apart_than_images(shape: tuple[int, int, int]) -> None:
    """And exactly as far apart where the images differ by a value for each cell."""
    members = images_of(RNG.random((30, *shape), np.float32))
    points = duplicates._factors(members, np.arange(30))
    for i in range(0, 30, 2):
        bound = np.square(points[i] - points[i + 1], dtype=np.float64).sum()
        assert bound <= metrics.mse(members[i][None], members[i + 1][None]).item() + 1e-6
    both = images_of(np.stack([np.full(shape, 0.25, np.float32), np.full(shape, 0.75, np.float32)]))
    points = duplicates._factors(both, np.arange(2))
    assert np.square(points[0] - points[1]).sum() == pytest.approx(0.25, rel=1e-5)


def test_the_nearest_member_is_found_in_blocks_of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    members = make(50)
    controls = make(30)
    for i in range(20):
        controls[i] = at_mse(members[2 * i], 0.5 * NEAR)
        members[2 * i + 1] = at_mse(controls[i], (0.2 if i % 2 else 0.8) * NEAR)
    of_members, of_controls = images_of(members), images_of(controls)
    expected = {i: 2 * i + i % 2 for i in range(20)}
    assert find_near_duplicates(of_members, of_controls) == expected
    monkeypatch.setattr(duplicates, "_CONTROLS", 7)
    monkeypatch.setattr(duplicates, "_MEMBERS", 11)
    assert find_near_duplicates(of_members, of_controls) == expected


def counting(images: Images) -> tuple[Images, list[int]]:
    """The same, and which have been read."""
    read: list[int] = []
    source = images.source

    def noted(index: int) -> np.ndarray:
        read.append(index)
        return source.read(index)

    return dataclasses.replace(images, source=Source(source.names, noted)), read


def test_equal_images_are_found_without_being_read_again() -> None:
    pixels = RNG.integers(0, 256, (20, 3, 16, 16), np.uint8)
    pixels[7] = pixels[4]
    members, members_read = counting(images_of(pixels))
    controls, controls_read = counting(images_of(pixels[[9, 7, 4]]))
    assert find_near_duplicates(members, controls) == {0: 9, 1: 4, 2: 4}  # the first of several that are equal
    assert not members_read + controls_read


def test_images_that_are_far_apart_are_not_read_again() -> None:
    members, members_read = counting(images_of(make(50)))
    controls, controls_read = counting(images_of(1 - make(50)))
    assert find_near_duplicates(members, controls) == {}
    assert not members_read + controls_read


def test_a_control_is_compared_with_a_few_members_only() -> None:
    """And with one alone where the others' thumbnails are further away than it is."""
    average = np.full((3, 16, 16), 0.5, np.float32)
    checks = np.float32(np.sqrt(2 * NEAR)) * (np.indices((16, 16)).sum(axis=0) % 2 - np.float32(0.5))
    like = np.stack([average + (1 + i / 100) * checks for i in range(60)])  # all with one thumbnail
    members, read = counting(images_of(like))
    find_near_duplicates(members, images_of((average - 3 * checks)[None]))
    assert len(read) == duplicates.MAX_COMPARED
    steps = np.stack([average + np.float32(0.001 * i) for i in range(1, 60)])
    members, read = counting(images_of(steps))
    assert find_near_duplicates(members, images_of(average[None])) == {0: 0}
    assert len(read) < 5


def test_images_that_cannot_be_used_are_near_to_none() -> None:
    """Their thumbnails are zeros, as are those of black images."""
    pixels = np.zeros((4, 3, 8, 8), np.float32)
    pixels[[0, 2]] = np.nan
    pixels[1] = 0.001
    members, controls = scan(from_array(pixels[:2])), scan(from_array(pixels[2:]))
    assert members.usable() == controls.usable() == [1]
    assert find_near_duplicates(members, controls) == {1: 1}


def test_images_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match=r"the members are of shape \(3, 16, 16\), the controls of \(1, 16, 16\)"):
        find_near_duplicates(images_of(make(2)), images_of(make(2, (1, 16, 16))))

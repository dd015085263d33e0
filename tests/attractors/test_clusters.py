from __future__ import annotations

import pickle

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster, linkage

from memrecon_fast.attractors.clusters import LINKED_MSE, Clusters

Images = NDArray[np.float32]


def random_numbers(seed: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(seed))


def around(centres: Images, counts: list[int], spread: float) -> Images:
    """Images near the centres, in a random order; two of one centre have an MSE of spread² at most."""
    generator = random_numbers(1)
    chosen = generator.permutation(np.repeat(np.arange(len(centres)), counts))
    noise = generator.uniform(-1, 1, (len(chosen), centres.shape[1]))
    noise *= spread / 2 / np.sqrt(np.square(noise).mean(axis=1, keepdims=True))
    images: Images = (centres[chosen] + noise).astype(np.float32)
    return images


def clusters_of(images: Images, pieces: list[int] | None = None) -> Clusters:
    found = Clusters(images.shape[1])
    for some in np.split(np.arange(len(images)), np.cumsum(pieces or [])):
        found.add(some, images[some])
    return found


def described(found: Clusters) -> list[tuple[int, int, bytes]]:
    return [(one.first, one.count, one.image.tobytes()) for one in found.clusters()]


@pytest.mark.parametrize("entries", [1, 3, 108])
def test_they_are_those_of_single_linkage(entries: int) -> None:
    centres = random_numbers().uniform(-1, 2, (7, entries)).astype("f4")
    images = around(centres, [1, 1, 2, 5, 20, 40, 80], 2e-3)
    found = clusters_of(images)
    # scipy's distances are Euclidean: MSE = distance² / entries
    labels = fcluster(linkage(images, "single"), np.sqrt(LINKED_MSE * entries), "distance")
    firsts = {label: int(np.flatnonzero(labels == label)[0]) for label in set(labels.tolist())}
    expected = sorted((first, int((labels == label).sum())) for label, first in firsts.items())
    assert [(one.first, one.count) for one in found.clusters()] == expected
    assert all(np.array_equal(one.image, images[one.first]) for one in found.clusters())


def test_pieces_make_no_difference() -> None:
    images = around(random_numbers().random((40, 12), np.float32), list(range(1, 41)), 4e-3)  # some links fail
    expected = described(clusters_of(images))
    assert sum(count for _, count, _ in expected) == len(images)
    for pieces in ([1] * 200, [64] * 12, [7, 0, 300, 1, 1]):
        assert described(clusters_of(images, pieces)) == expected


def test_a_link_is_exact_where_pixels_are_large() -> None:
    """The square of a pixel is 10¹¹ times the limit here: float32 products would tell nothing."""
    step = np.sqrt(LINKED_MSE)
    images = 1000 + np.array([[0.0], [0.95 * step], [-1.05 * step]]) * np.ones((1, 50))
    found = clusters_of(images.astype("f4"))
    spacing = np.diff(np.sort(images.astype("f4")[:, 0].astype(float)))
    assert np.square(spacing).max() > LINKED_MSE > np.square(spacing).min()  # so after rounding
    assert [(one.first, one.count) for one in found.clusters()] == [(0, 2), (2, 1)]


def test_images_between_two_leaders_join_their_clusters() -> None:
    step = np.sqrt(LINKED_MSE)
    line = np.array([0.0, 1.5, 3.0, 0.75, 2.25])[:, None] * step * np.ones((1, 6))
    found = clusters_of(line.astype("f4"))
    assert found.firsts == [0, 1, 2]
    assert [(one.first, one.count) for one in found.clusters()] == [(0, 5)]
    apart = clusters_of(line[[2, 1, 0, 4]].astype("f4"), [2])
    assert [(one.first, one.count) for one in apart.clusters()] == [(0, 3), (2, 1)]


def test_memory_is_that_of_what_is_different() -> None:
    centres = random_numbers().random((5, 300), np.float32)
    found = Clusters(300)
    before = len(pickle.dumps(found))
    for block in range(50):
        found.add(np.arange(100 * block, 100 * block + 100), around(centres, [20] * 5, 1e-3))
        if not block:
            after = len(pickle.dumps(found))
    assert len(found.firsts) == 5
    assert sum(one.count for one in found.clusters()) == 5000
    assert len(pickle.dumps(found)) < after + 100  # counts have more digits
    assert after < before + 16 * (300 * 4 + 65 * 8) + 1000  # room for 16 leaders


def test_what_looks_alike_along_the_axes_is_compared_pixel_by_pixel(monkeypatch: pytest.MonkeyPatch) -> None:
    images = around(random_numbers().random((200, 9), np.float32), [2] * 200, 4e-3)
    expected = described(clusters_of(images, [50, 100]))
    assert 200 <= len(expected) < 400
    monkeypatch.setattr("memrecon_fast.attractors.clusters._AXES", 1)
    assert described(clusters_of(images, [50, 100])) == expected


def test_no_images() -> None:
    found = Clusters(4)
    found.add(np.arange(0), np.empty((0, 4), np.float32))
    assert found.clusters() == []

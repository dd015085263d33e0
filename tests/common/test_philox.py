"""Philox against published vectors, and what is made of its words against the normal distribution."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import special, stats

from memrecon_fast.common.philox import OCTAVES, normal, normal_rows, philox


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [  # of Random123, kat_vectors: philox 4x32 10
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_published_vectors(counter: tuple[int, ...], key: tuple[int, int], expected: tuple[int, ...]) -> None:
    a, b, c, d = (np.array([number], dtype=np.uint32) for number in counter)
    found = philox((a, b, c, d), key[0] | key[1] << 32)
    assert tuple(int(word[0]) for word in found) == expected


def test_a_number_is_the_quantile_of_its_word() -> None:
    magnitudes = np.unique(
        np.concatenate([2**31 - 1 - np.arange(99), *(2**k + np.arange(-9, 9) for k in range(4, 31))])
    )
    words = magnitudes.astype(np.uint32)
    expected = -special.ndtri((magnitudes + 0.5) / 2**32)
    np.testing.assert_allclose(normal(words), expected, rtol=0, atol=5e-6)
    np.testing.assert_array_equal(normal(words | np.uint32(2**31)), -normal(words))
    assert normal(np.array([0], dtype=np.uint32))[0] == OCTAVES[0, 0]


def test_numbers_are_normal_and_do_not_depend_on_each_other() -> None:
    numbers = normal_rows(0, 40_000, 10, seed=7).astype(np.float64)
    flat = numbers.ravel()
    assert abs(flat.mean()) < 4 / np.sqrt(flat.size)
    assert abs(flat.var() - 1) < 4 * np.sqrt(2 / flat.size)
    assert stats.kstest(flat, "norm").pvalue > 1e-3
    correlations = np.corrcoef(numbers.T) - np.eye(10)
    assert np.abs(correlations).max() < 5 / np.sqrt(40_000)


def test_any_part_is_the_same_as_in_the_whole() -> None:
    whole = normal_rows(0, 30, 7, seed=3)
    np.testing.assert_array_equal(normal_rows(11, 19, 7, seed=3), whole[11:19])
    np.testing.assert_array_equal(normal_rows(0, 30, 5, seed=3), whole[:, :5])
    assert not np.array_equal(normal_rows(0, 30, 7, seed=4), whole)
    far = normal_rows(2**32 + 3, 2**32 + 5, 7, seed=3)
    assert not np.array_equal(far, whole[3:5])


def test_these_are_the_bits() -> None:
    """They must never change: a model may be nothing but its seed."""
    found = normal_rows(5, 7, 3, seed=2**40 + 1).view(np.uint32)
    assert [[hex(bits) for bits in row] for row in found.tolist()] == [
        ["0xbef21a90", "0xbeba8a08", "0xbef673fa"],
        ["0x3e9733a3", "0x3ef6744f", "0xbf2d63ba"],
    ]

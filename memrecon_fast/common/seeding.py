"""Keyed random numbers, which depend on neither batch nor order."""

from __future__ import annotations

import zlib

import numpy as np


def keyed_random(purpose: str, seed: int, index: int) -> np.random.Generator:
    """Random numbers that depend on (purpose, seed, index) alone, 0 ≤ seed, index < 2⁶⁴; independent for each."""
    return np.random.Generator(keyed_bits(purpose, seed, index))


def keyed_bits(purpose: str, seed: int, index: int) -> np.random.Philox:
    """The bits behind `keyed_random`."""
    counter = np.array([0, 0, 0, zlib.crc32(purpose.encode())], dtype=np.uint64)
    return np.random.Philox(key=np.array([seed, index], dtype=np.uint64), counter=counter)

"""Normal numbers that any part of a large matrix can be made of again, the same on every machine, bit for bit.

Philox-4x32-10 (Salmon et al., SC 2011) makes four words of 32 bits of a counter and a key. A word becomes a number
that is distributed normally by operations alone that IEEE 754 rounds exactly, one by one: logarithm, sine and cosine
differ from library to library. Its first bit is the sign; the others, m, the place in the tail, u = (m + ½)/2³²:
x = −Φ⁻¹(u), which is a polynomial in each octave of m (`OCTAVES`), to 5e-6.

Triton makes the same numbers in reconstruction/passes/triton.py.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint32]

_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_WEYL = (0x9E3779B9, 0xBB67AE85)
_LOW = np.uint64(0xFFFFFFFF)
ROUNDS = 10

OCTAVES = np.array(
    [
        (6.337958, 0.0, 0.0, 0.0, 0.0, 0.0),
        (6.166429, -0.10544927, 0.03406536, -0.01399723, 0.0050696586, -0.0010133984),
        (6.085104, -0.12812704, 0.049423903, -0.023710582, 0.00958127, -0.0020442505),
        (5.9902267, -0.14448392, 0.061661348, -0.03222947, 0.013807657, -0.0030487005),
        (5.885933, -0.15553878, 0.07006139, -0.03830993, 0.016915409, -0.0038010562),
        (5.775259, -0.16315159, 0.075544216, -0.042269327, 0.01895067, -0.0042962865),
        (5.6600356, -0.16884561, 0.07924288, -0.044849493, 0.020260768, -0.004613602),
        (5.5412297, -0.17359503, 0.08197815, -0.04665483, 0.021154542, -0.004827538),
        (5.4192843, -0.17796212, 0.08424522, -0.048065823, 0.02183218, -0.00498728),
        (5.2943454, -0.18226124, 0.086321466, -0.04929866, 0.022408683, -0.005121276),
        (5.1663938, -0.18667176, 0.08835931, -0.050471764, 0.02294713, -0.0052451547),
        (5.0353103, -0.19130406, 0.09044455, -0.051650375, 0.023482027, -0.005367442),
        (4.900914, -0.1962359, 0.09262916, -0.0528722, 0.02403296, -0.0054929405),
        (4.7629743, -0.2015322, 0.09494898, -0.05416137, 0.024612062, -0.0056245807),
        (4.6212163, -0.20725639, 0.09743321, -0.055535853, 0.025227988, -0.0057644094),
        (4.47532, -0.21347736, 0.1001097, -0.05701149, 0.025888044, -0.0059141167),
        (4.3249135, -0.22027494, 0.10300811, -0.058604278, 0.026599376, -0.006075328),
        (4.169565, -0.2277451, 0.10616219, -0.060331855, 0.027369719, -0.006249783),
        (4.008769, -0.23600604, 0.10961185, -0.062214676, 0.02820794, -0.0064394646),
        (3.8419278, -0.245206, 0.11340524, -0.06427712, 0.029124532, -0.0066467104),
        (3.6683264, -0.25553444, 0.1176015, -0.06654882, 0.03013218, -0.0068743383),
        (3.4871013, -0.267238, 0.122274086, -0.06906623, 0.031246435, -0.007125796),
        (3.2971904, -0.28064483, 0.12751542, -0.07187484, 0.032486603, -0.0074053546),
        (3.0972662, -0.2962024, 0.13344301, -0.07503204, 0.03387694, -0.0077183703),
        (2.8856318, -0.31453916, 0.14020751, -0.078611076, 0.035448294, -0.008071639),
        (2.6600642, -0.3365697, 0.14800267, -0.08270642, 0.0372403, -0.00847388),
        (2.4175556, -0.36368445, 0.15707456, -0.087440945, 0.039304405, -0.008936395),
        (2.153871, -0.3981181, 0.1677183, -0.092975296, 0.04170777, -0.009473936),
        (1.8627281, -0.44373265, 0.18021198, -0.09952101, 0.044537824, -0.010105772),
        (1.5341165, -0.5079013, 0.19446145, -0.10737742, 0.047904797, -0.010856908),
        (1.150345, -0.60690933, 0.20815066, -0.11723717, 0.051904395, -0.011766266),
        (0.67448515, -0.7863791, 0.20455918, -0.13493553, 0.05610618, -0.013838345),
        (0.0, 0.0, 0.0, 0.0, 0.0, 0.0),
    ],
    dtype=np.float32,
)
"""(33, 6): for m of so many bits, coefficients of −Φ⁻¹((m + ½)/2³²) in powers of t, m = 2^(bits − 1)·(1 + t). The
last is for those m that float32 rounds to 2³¹: 0."""

_POWERS = np.ascontiguousarray(OCTAVES.T)


def philox(counters: tuple[Words, Words, Words, Words], seed: int) -> tuple[Words, Words, Words, Words]:
    """Four words of each counter, arrays of one shape. seed: the key, 64 bits, the lower ones first."""
    a, b, c, d = (one.astype(np.uint64, order="C") for one in counters)
    for turn in range(ROUNDS):
        key = [np.uint64(((seed >> (32 * half)) + turn * _WEYL[half]) & 0xFFFFFFFF) for half in range(2)]
        a *= _MULTIPLIERS[0]
        c *= _MULTIPLIERS[1]
        b ^= key[0]
        b ^= c >> np.uint64(32)
        d ^= key[1]
        d ^= a >> np.uint64(32)
        c &= _LOW
        a &= _LOW
        a, b, c, d = b, c, d, a
    return a.astype(np.uint32), b.astype(np.uint32), c.astype(np.uint32), d.astype(np.uint32)


def normal(words: Words) -> NDArray[np.float32]:
    """One number of each word, of mean 0 and variance 1, at most 6.34 from 0."""
    bits = (words & np.uint32(0x7FFFFFFF)).astype(np.float32).view(np.int32)
    octave = np.maximum((bits >> 23) - 126, 0).astype(np.intp)
    t = (bits & 0x7FFFFF).astype(np.float32) * np.float32(2**-23)
    found = _POWERS[-1].take(octave)
    for coefficients in _POWERS[-2::-1]:
        found *= t
        found += coefficients.take(octave)
    signed: NDArray[np.float32] = (found.view(np.uint32) ^ (words & np.uint32(0x80000000))).view(np.float32)
    return signed


def normal_rows(first: int, end: int, d: int, seed: int) -> NDArray[np.float32]:
    """Rows first … end − 1 of a matrix of d columns: entry (k, j) is of word j mod 4 of the counter (⌊j/4⌋, k, k/2³²,
    0)."""
    rows = np.arange(first, end, dtype=np.uint64)[:, None]
    columns = np.arange(-(-d // 4), dtype=np.uint64)
    shape = (len(rows), len(columns))
    parts = (columns, rows & _LOW, rows >> np.uint64(32), np.uint64(0))
    counters = [np.broadcast_to(part.astype(np.uint32), shape) for part in parts]
    found = np.empty((shape[0], 4 * shape[1]), dtype=np.float32)
    for part, words in enumerate(philox((counters[0], counters[1], counters[2], counters[3]), seed)):
        found[:, part::4] = normal(words)
    return found[:, :d]

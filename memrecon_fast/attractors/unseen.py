"""How much is still unseen: the share of starts that would end in an attractor that no start has ended in yet.

Good and Turing: of n starts, n₁ ended where no other did, and n₁/n estimates the share that is unseen. It has little
bias, and no certainty: with no such start it says 0. So there is a bound as well. While the unseen share is above p,
each start brings something new with a probability above p. So of m starts that brought something new k times, which had
not been looked at before, P(unseen share after them > p) ≤ P(Binomial(m, p) ≤ k) ≤ exp(−m KL(k/m ‖ p)), by Chernoff.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence

BLOCK = 64
"""Starts, in the order of their indices, between two looks at whether new ones bring something new."""
DOUBT = 0.05
"""The probability that the bound is too small at any of the looks, however many they are."""
_BISECTIONS = 50


def unseen_share(counts: Sequence[int], starts: int) -> float:
    """Good–Turing: the share of the starts that ended where no other did. 1 without a start.

    counts: of each attractor, how many starts ended there. starts: in all, also those that ended in none.
    """
    return sum(count == 1 for count in counts) / starts if starts else 1.0


def unseen_bound(news: Sequence[int], starts: int) -> float:
    """What the unseen share is at most; with a probability of 95 % that holds at all looks together, so that a harvest
    may end when the bound is low enough. 1 before the first look.

    news: the indices of the starts that brought something new, ascending. starts: a multiple of `BLOCK`, or more, all
    of which were looked at; what came after the last look is left out. The later half of them is what the bound
    rests on, and a look t = 1, 2, … may be wrong with probability 0.05/(t(t + 1)), which is 0.05 in all.
    """
    look = starts // BLOCK
    if not look:
        return 1.0
    first, last = look * BLOCK // 2, look * BLOCK
    new = bisect.bisect_left(news, last) - bisect.bisect_left(news, first)
    return _binomial_bound(new, last - first, math.log(look * (look + 1) / DOUBT))


def _binomial_bound(k: int, m: int, surprise: float) -> float:
    """The p above k/m with m KL(k/m ‖ p) = surprise."""
    share = k / m
    low, high = share, 1.0
    for _ in range(_BISECTIONS):
        p = (low + high) / 2
        low, high = (low, p) if p == 1 or m * _divergence(share, p) > surprise else (p, high)
    return high


def _divergence(q: float, p: float) -> float:
    """KL(q ‖ p) of two coins, in nats."""
    return sum(a * math.log(a / b) for a, b in ((q, p), (1 - q, 1 - p)) if a > 0)

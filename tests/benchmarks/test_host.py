"""`benchmarks/speed/host.py` at a tiny size."""

from __future__ import annotations

import pytest

pytest.importorskip("pyarrow")

from benchmarks import measuring
from benchmarks.speed import host


def test_every_way_takes_all_images_and_has_a_row() -> None:
    rows = list(host.measure((4, 8), 40, 2))  # the ways count what comes back
    assert [(row["way"], row["size"]) for row in rows] == [(way, size) for size in (4, 8) for way in host.WAYS]
    for row in rows:
        assert 0 < row["microseconds"]["p20"] <= row["microseconds"]["p50"] <= row["microseconds"]["p80"]
    page = host.render(measuring.where(), rows)
    assert sum(line.startswith(("| in flight", "| audit")) for line in page.splitlines()) == 4

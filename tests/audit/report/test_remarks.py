from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

import memrecon_fast as mf
from memrecon_fast.audit.report.remarks import remarks_of
from tests.helpers.auditing import images_of, run, small_audit
from tests.helpers.memorised import Memorised


def test_controls_that_are_members_and_copies_are_said_below_the_table(memorised: Memorised, tmp_path: Path) -> None:
    members = torch.cat([memorised.members[:2], memorised.members[2:3].expand(5, -1, -1, -1)])
    nearly = (memorised.members[1:2] + 0.005).clamp(0, 1)
    controls = torch.cat([memorised.members[:1], nearly, memorised.controls[:2]])
    splits = {"members": images_of(members), "controls": images_of(controls)}
    run(small_audit(memorised, splits=splits, methods=("known-mask",)), memorised.autoencoder, tmp_path)
    opened = mf.audit.open(tmp_path)
    stream = io.StringIO()
    opened.write_report(Console(file=stream, width=200))
    for line in (
        "1 of 4 controls are members, with the same pixels, 1 of 4 controls are nearly a member: what comes back",
        "5 of 7 members are copies of 1 image, and count as often as they are there.",
    ):
        assert line in stream.getvalue()
        assert line in opened.report.read_text()
    assert opened.summary["copies"] == {"within": {"members": [5, 1], "controls": [0, 0]}, "controls_in_members": 1}


@pytest.mark.parametrize("degraded", [False, True])
def test_of_degraded_controls_that_are_members_the_threshold_is_said(degraded: bool) -> None:
    summary: dict[str, Any] = {
        "rows": [],
        "degraded": degraded,
        "erased_unknown": 0,
        "images": {"members": 3, "controls": 2},
        "near_duplicates": {"count": 2},
        "copies": {"within": {"members": [0, 0], "controls": [0, 0]}, "controls_in_members": 2},
    }
    (line,) = remarks_of(summary)
    assert line.startswith("2 of 2 controls are members, with the same pixels")
    assert ("the threshold is set" in line) == degraded

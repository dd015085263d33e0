from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from torch import Tensor

import memrecon_fast as mf
from memrecon_fast.audit.plan import Audit
from memrecon_fast.audit.session import MissingImagesError
from memrecon_fast.images.scan import open_images, scan
from memrecon_fast.images.sources import from_iterable
from tests.helpers.auditing import SETTINGS, SHAPE
from tests.helpers.memorised import Memorised

MASKS = {"half": mf.degradation.make_mask("half", SHAPE)}


def test_an_audit_from_python_of_any_iterable(memorised: Memorised, tmp_path: Path) -> None:
    def my_images() -> Iterator[Tensor]:
        yield from memorised.members

    members = scan(from_iterable(my_images(), tmp_path / "members.npy"))
    audit = Audit({"members": members}, MASKS, settings=SETTINGS)
    console = Console(record=True, width=200)
    report = mf.audit.run(audit, memorised.autoencoder, tmp_path / "run", progress=console).report
    assert report == tmp_path / "run" / "report.html"
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["model"] == "Sequential"
    degraded = mf.degradation.erase(memorised.members, MASKS["half"])
    recovery = mf.recover(memorised.autoencoder, degraded, None, SETTINGS)
    rate = mf.metrics.recovery_rate(mf.metrics.mse(recovery.images, memorised.members), mf.metrics.APPROXIMATE_MSE)
    (row,) = [row for row in summary["rows"] if row["method"] == "paper"]
    assert row["approximate_rate"] == rate > 0.3
    mf.audit.run(audit, memorised.autoencoder, tmp_path / "run", progress=console)
    assert "64 of 64 recoveries were done before" in console.export_text()
    assert len(json.loads((tmp_path / "run" / "summary.json").read_text())["sessions"]) == 1


def test_what_is_missing_in_the_end_is_said_after_the_report(memorised: Memorised, tmp_path: Path) -> None:
    path = tmp_path / "members.npy"
    np.save(path, memorised.members.numpy())
    audit = Audit({"members": open_images(path)}, MASKS, ("known-mask",))
    changed = memorised.members.numpy().copy()
    changed[5] = 0
    np.save(path, changed)
    with pytest.raises(MissingImagesError, match=r"1 recoveries are missing; images could not be read, first: 5 has"):
        mf.audit.run(audit, memorised.autoencoder, tmp_path / "run", progress=False)
    assert "ended early" in (tmp_path / "run" / "report.html").read_text()
    np.save(path, memorised.members.numpy())
    mf.audit.run(audit, memorised.autoencoder, tmp_path / "run", progress=False)
    assert "ended early" not in (tmp_path / "run" / "report.html").read_text()


def test_where_nothing_can_be_done_the_reason_is_said(memorised: Memorised, tmp_path: Path) -> None:
    path = tmp_path / "members.npy"
    np.save(path, memorised.members.numpy())
    audit = Audit({"members": open_images(path)}, MASKS, ("known-mask",))
    np.save(path, 1 - memorised.members.numpy())
    with pytest.raises(MissingImagesError, match=r"16 recoveries are missing; images could not be read, first: 0 has"):
        mf.audit.run(audit, memorised.autoencoder, tmp_path / "run", progress=False)

"""What comes back without the model stands beside what comes back with it."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
import torch
from rich.console import Console

import memrecon_fast as mf
from memrecon_fast.audit.plan import Audit
from memrecon_fast.audit.report.table import make_table
from tests.helpers.auditing import images_of
from tests.helpers.memorised import Memorised

SHAPE = (3, 8, 8)


def half_smooth(memorised: Memorised) -> Audit:
    """Two members that the model remembers, and two smooth ones, which come back from their neighbours; two controls
    of each kind."""
    side = torch.linspace(0, 1, 8)
    smooth = (0.5 * side[:, None] + 0.4 * side).expand(4, *SHAPE) + 0.02 * torch.arange(4)[:, None, None, None]
    splits = {
        "members": images_of(torch.cat([memorised.members[:2], smooth[:2]])),
        "controls": images_of(torch.cat([memorised.controls[:1], smooth[2:3]])),
    }
    masks = {name: mf.degradation.make_mask(name, SHAPE) for name in ("center", "corner")}
    return Audit(splits, masks, ("known-mask", "inpaint"))


def table_of(summary: dict[str, object]) -> str:
    stream = io.StringIO()
    Console(file=stream, width=160).print(make_table(summary))
    return " ".join(stream.getvalue().split())  # captions are wrapped


@pytest.mark.filterwarnings("ignore:The model does not reconstruct")
def test_beside_each_rate_is_the_one_without_the_model(memorised: Memorised, tmp_path: Path) -> None:
    with pytest.warns(RuntimeWarning, match="does not reconstruct"):
        run = mf.audit.run(half_smooth(memorised), memorised.autoencoder, tmp_path / "run", progress=False)
    found = {
        (row["mask"], row["split"], row["index"])
        for row in run.records.to_pylist()
        if row["method"] == "inpaint" and row["approximate"]
    }
    assert found >= {("center", "members", 2), ("center", "members", 3), ("center", "controls", 1)}
    for row in run.summary["without_model"]:
        masks = ("center", "corner") if row["mask"] is None else (row["mask"],)
        back = {index for mask, split, index in found if split == row["split"] and mask in masks}
        assert (row["images"], row["approximate"]) == ({"members": 4, "controls": 2}[row["split"]], len(back))
        assert row["approximate_rate"] == len(back) / row["images"]
    rows = [(row["split"], row["mask"]) for row in run.summary["without_model"]]
    assert rows == [(split, mask) for split in ("members", "controls") for mask in ("center", "corner", None)]
    rates = {(row["mask"], row["method"]): row for row in run.summary["rows"] if row["split"] == "members"}
    center = rates["center", "known-mask"], rates["center", "inpaint"]
    assert center[1]["approximate_rate"] == 0.5
    printed = table_of(run.summary)
    assert "No model: approximately by inpaint, which needs no memory." in printed
    (cells,) = re.findall(r"center known-mask (\S+) (\S+)", printed)
    assert list(cells) == [f"{center[0]['approximate_rate']:.1%}", "50.0%"]
    page = run.report.read_text()
    assert re.search(r"by inpaint with the mask known, 2 of\s+4 members came back: that much needs no memory", page)
    assert page.count('<th class="number">without the model</th>') == 1
    row = re.search(r"center</th><td>known-mask</td>(.*)", page)
    assert row is not None
    assert re.search(r'<td class="number">50\.0 %</td>', row.group(1))


@pytest.mark.filterwarnings("ignore:The model does not reconstruct")
@pytest.mark.parametrize("methods", [("known-mask",), ("inpaint",)])
def test_nothing_is_said_where_there_is_nothing_to_compare(
    memorised: Memorised, tmp_path: Path, methods: tuple[str, ...]
) -> None:
    members = images_of(memorised.members[:2])
    plan = Audit({"members": members}, {"half": mf.degradation.make_mask("half", SHAPE)}, methods)
    run = mf.audit.run(plan, memorised.autoencoder, tmp_path / "run", progress=False)
    assert "without_model" not in run.summary
    assert "no model" not in table_of(run.summary).lower()
    assert "without the model" not in run.report.read_text()

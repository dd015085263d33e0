from __future__ import annotations

import dataclasses
import io
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor

import memrecon_fast as mf
from memrecon_fast.audit.report.remarks import _told, remarks_of
from memrecon_fast.common.typing import Autoencoder
from memrecon_fast.engine.batched import Batched
from memrecon_fast.methods import METHODS, Method, Open, registered
from memrecon_fast.recovery import prepare_iterate
from tests.helpers.auditing import SHAPE, images_of, run, small_audit
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


def test_images_of_one_colour_that_come_back_are_said(memorised: Memorised, tmp_path: Path) -> None:
    """Grey in the holes is as near to them as an estimate must be."""
    colours = torch.tensor([0.2, 0.5, 0.8])[:, None, None].expand(3, 8, 8)
    texture = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(3)) - 0.5
    controls = torch.stack([colours + 0.06 * texture, colours - 0.06 * texture, colours + 0.12 * texture])
    splits = {"members": images_of(memorised.members), "controls": images_of(controls)}
    masks = {"half": mf.degradation.make_mask("half", SHAPE)}
    gives_back = Method("colour", "given", False, prepare_colour)
    with registered(gives_back):
        plan = mf.audit.Audit(splits, masks, ("colour",))
        run = mf.audit.run(plan, memorised.autoencoder, tmp_path / "run", progress=False)
    flat = [row["flat_mse"] for row in run.records.to_pylist() if row["split"] == "controls"]
    assert [mse < 5e-4 for mse in flat] == [True, True, False]
    assert run.summary["low_contrast"] == {
        "members": {"count": 0, "approximate": 0}, "controls": {"count": 2, "approximate": 2},
    }  # fmt: skip
    (said,) = [remark for remark in remarks_of(run.summary) if "contrast" in remark]
    assert said.startswith(
        "2 of 3 controls came back that have little contrast: their mean colour alone passes for them, as its mean "
        "squared error, the variance of their pixels, is below 5e-4, the limit"
    )
    assert said in run.report.read_text()
    summary = {**run.summary, "low_contrast": {"controls": {"count": 2, "approximate": 0}}}
    assert not [remark for remark in remarks_of(summary) if "contrast" in remark]


def prepare_colour(autoencoder: Autoencoder, shape: Sequence[int], settings: mf.Settings, backend: str) -> Open:
    def fill(degraded: Tensor, masks: Tensor) -> Tensor:
        kept = masks.sum(dim=(2, 3), keepdim=True)
        return torch.where(masks, degraded, degraded.sum(dim=(2, 3), keepdim=True) / kept)

    return partial(Batched, fill, prepare_iterate(autoencoder, shape, backend=backend))


def test_methods_that_are_given_the_mask_are_named() -> None:
    traits = {name: dataclasses.asdict(METHODS[name].traits) for name in ("accelerated", "known-mask", "inpaint")}
    assert list(_told({"traits": traits})) == ["known-mask and inpaint were told which pixels are missing."]
    three = traits | {"ddnm": dataclasses.asdict(METHODS["ddnm"].traits)}
    assert list(_told({"traits": three})) == ["known-mask, inpaint and ddnm were told which pixels are missing."]
    del traits["inpaint"]
    assert list(_told({"traits": traits})) == ["known-mask was told which pixels are missing."]
    del traits["accelerated"]
    assert not list(_told({"traits": traits}))  # nothing stands beside it
    assert not list(_told({}))

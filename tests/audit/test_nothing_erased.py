"""Images of which a mask erases nothing say nothing of the model; masks and images that contradict each other."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import Tensor

import memrecon_fast as mf
from memrecon_fast.audit.plan import DEGRADED_MASK, Audit
from tests.helpers.auditing import SETTINGS, SHAPE, images_of, small_audit
from tests.helpers.memorised import Memorised

CENTER = mf.degradation.make_mask("center", SHAPE)
METHODS = ("accelerated", "known-mask", "iterate", "inpaint")


def darkened(images: Tensor, level: float) -> Tensor:
    """The images with this value where the mask erases."""
    return torch.where(CENTER, images, level)


def printed(run: mf.audit.Run) -> str:
    stream = io.StringIO()
    run.write_report(Console(file=stream, width=200))
    return stream.getvalue()


@pytest.mark.parametrize("noise_std", [0.0, 0.02])
def test_images_of_which_nothing_is_erased_count_nowhere(
    memorised: Memorised, tmp_path: Path, noise_std: float
) -> None:
    """Black or nearly so where the mask erases: whoever leaves that as it is would "recover" them, controls as well."""
    members = torch.cat(
        [memorised.members[:6], darkened(memorised.members[6:8], 0), darkened(memorised.members[8:9], 1e-3)]
    )
    controls = torch.cat([memorised.controls[:3], darkened(memorised.controls[3:5], 0)])
    audit = small_audit(
        memorised,
        splits={"members": images_of(members), "controls": images_of(controls)},
        masks={"center": CENTER},
        methods=METHODS,
        noise_std=noise_std,
    )
    run = mf.audit.run(audit, memorised.autoencoder, tmp_path / "run", progress=False)
    erased = {row["index"]: row["erased_mse"] for row in run.records.to_pylist() if row["split"] == "members"}
    truth = mf.metrics.mse(members, mf.degradation.erase(members, CENTER)).tolist()
    assert [erased[index] for index in range(9)] == pytest.approx(truth, rel=1e-6)
    for row in run.summary["rows"]:
        expected = (6, 3) if row["split"] == "members" else (3, 2)
        assert (row["images"], row["nothing_erased"]) == expected
        if row["split"] == "controls":
            assert row["approximate_rate"] == 0
    for row in run.summary["recognition"]:
        assert row["threshold"] == row["limit"]  # no control that is left out lowers it
        assert row["controls"] == 3
    assert {row["members"] for row in run.summary["comparisons_over_masks"]} == {6}
    assert run.summary["verdicts"]["members"]["nothing erased"] == 3
    assert run.summary["verdicts"]["controls"]["nothing erased"] == 2
    assert run.missing == run.summary["missing"] == 0
    with open(run.path / "verdicts.csv", newline="") as stream:
        lines = list(csv.DictReader(stream))
    assert [line["verdict"] == "nothing erased" for line in lines] == [False] * 6 + [True] * 3 + [False] * 3 + [
        True
    ] * 2
    assert [line["nothing_erased"] for line in lines[5:7]] == ["0", "1"]
    assert {picture.index for picture in run.pictures("members", "center", "iterate")} <= set(range(6))
    said = "3 of 9 members under center, 2 of 5 controls under center were left out: nothing of them was erased"
    assert said in printed(run)
    assert said in run.report.read_text()


@pytest.mark.filterwarnings("ignore:The model does not reconstruct")  # it was trained on others
def test_where_nothing_is_erased_of_any_image_there_is_no_rate(memorised: Memorised, tmp_path: Path) -> None:
    splits = {"members": images_of(darkened(memorised.members, 0))}
    audit = small_audit(memorised, splits=splits, masks={"center": CENTER}, methods=METHODS)
    run = mf.audit.run(audit, memorised.autoencoder, tmp_path / "run", progress=False)
    for row in run.summary["rows"]:
        assert (row["images"], row["nothing_erased"], row["approximate_rate"]) == (0, 16, None)
    assert run.summary["verdicts"] == {"members": {"nothing erased": 16}}
    with open(run.path / "summary.csv", newline="") as stream:
        assert {line["approximate_interval_low"] for line in csv.DictReader(stream)} == {""}
    assert "16 of 16 members under center were left out" in printed(run)
    assert "No training image</strong> of which something was erased" in run.report.read_text()


@pytest.mark.filterwarnings("ignore:The model does not reconstruct")  # it was trained on others
def test_an_image_may_count_under_one_mask_alone(memorised: Memorised, tmp_path: Path) -> None:
    masks = {"center": CENTER, "half": mf.degradation.make_mask("half", SHAPE)}
    splits = {"members": images_of(darkened(memorised.members[:4], 0)), "controls": images_of(memorised.controls[:4])}
    audit = small_audit(memorised, splits=splits, masks=masks, methods=("known-mask",))
    summary = mf.audit.run(audit, memorised.autoencoder, tmp_path / "run", progress=False).summary
    images = {
        row["mask"]: (row["images"], row["nothing_erased"]) for row in summary["rows"] if row["split"] == "members"
    }
    assert images == {"center": (0, 4), "half": (4, 0)}
    assert [row["members"] for row in summary["comparisons_over_masks"]] == [4]
    assert "nothing erased" not in summary["verdicts"]["members"]


@pytest.mark.parametrize(("mask", "what"), [(torch.ones, "keeps"), (torch.zeros, "erases")])
def test_a_mask_that_keeps_all_or_nothing_is_refused(memorised: Memorised, mask: Any, what: str) -> None:
    wrong = mask(SHAPE, dtype=torch.bool)
    with pytest.raises(ValueError, match=f"the mask 'mine' {what} everything"):
        small_audit(memorised, masks={"center": CENTER, "mine": wrong})
    given = {"splits": {"members": images_of(memorised.members)}, "masks": {DEGRADED_MASK: wrong}, "degraded": True}
    with pytest.raises(ValueError, match=f"the mask 'given' {what} everything"):
        Audit(methods=("known-mask",), **given)  # type: ignore[arg-type]
    Audit(methods=("paper",), **given)  # type: ignore[arg-type]
    masks = torch.stack([CENTER, wrong, CENTER])
    with pytest.raises(ValueError, match=f"the mask of image 1 {what} everything"):
        mf.recover(memorised.autoencoder, torch.zeros(3, *SHAPE), masks)


def degraded_audit(images: Tensor, mask: Tensor | None = None, noise_std: float = 0.0) -> Audit:
    method = "paper" if mask is None else "known-mask"
    masks = {DEGRADED_MASK: torch.ones(SHAPE, dtype=torch.bool) if mask is None else mask}
    splits = {"members": images_of(images)}
    return Audit(splits, masks, (method,), SETTINGS, degraded=True, noise_std=noise_std, backend="torch", slots=8)


def test_a_known_mask_that_the_images_contradict_is_refused(memorised: Memorised, tmp_path: Path) -> None:
    degraded = mf.degradation.erase(memorised.members, CENTER)
    white = torch.where(CENTER, memorised.members, 1.0)
    solver = mf.prepare_recover(memorised.autoencoder, SHAPE, SETTINGS, known_masks=True)
    for images, mask, words in (
        (degraded, ~CENTER, r"all is 0 that the mask keeps, and \d+ of 144 entries are not that it erases: it is inv"),
        (memorised.members, CENTER, r"\d+ of the 48 entries that the mask erases are not 0; is the mask inverted"),
        (white, CENTER, r"48 of the 48 entries that the mask erases are not 0; is the mask inverted"),
    ):
        with pytest.raises(ValueError, match=rf"image 0 of degraded: {words}"):
            mf.recover(memorised.autoencoder, images, mask, SETTINGS)
        with pytest.raises(ValueError, match=rf"image 7: {words}"):
            list(mf.InFlight(solver, 4).stream([mf.Sample(7, images[0], mask)]))
        with pytest.raises(ValueError, match=rf"16 of 16 members contradict the mask, first 0: {words}"):
            mf.audit.run(degraded_audit(images, mask), memorised.autoencoder, tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()
    noisy = mf.degradation.erase(memorised.members, CENTER, 0.02)
    for images in (noisy, white):  # with noise what was erased need not be 0
        mf.recover(memorised.autoencoder, images, CENTER, mf.Settings(restore_known_pixels=False, solver="paper"))
    mf.audit.run(
        degraded_audit(noisy.clamp(0, 1), CENTER, 0.02), memorised.autoencoder, tmp_path / "run", progress=False
    )
    with pytest.raises(ValueError, match="it is inverted"):  # exact zeros carry no noise
        degraded_audit(degraded, ~CENTER, 0.02).check_degradation()
    black = torch.cat([torch.zeros(1, *SHAPE), degraded])
    mf.recover(memorised.autoencoder, black, CENTER, SETTINGS)  # nothing contradicts nothing


def test_images_that_are_not_degraded_are_no_recoveries(memorised: Memorised, tmp_path: Path) -> None:
    """Blind, a whole member is its own estimate, with a perfect score."""
    whole = memorised.members.clamp(min=0.02)
    with pytest.raises(ValueError, match="the members are not degraded: not one entry of an image is 0"):
        mf.audit.run(degraded_audit(whole), memorised.autoencoder, tmp_path / "run", progress=False)
    mixed = memorised.members.clone()  # some of which are black here and there, as photographs are
    mixed[8:] = mf.degradation.erase(memorised.members[8:], CENTER)
    run = mf.audit.run(degraded_audit(mixed), memorised.autoencoder, tmp_path / "run", progress=False)
    (row,) = run.summary["rows"]
    assert (row["images"], row["nothing_erased"]) == (8, 8)
    assert "8 of 16 members were left out: the estimates are hardly more than what was given" in printed(run)
    erased = np.array([one["erased_mse"] for one in run.records.to_pylist()])
    assert (erased[:8] < 5e-4).all()
    assert (erased[8:] > 5e-4).all()

"""Surveys: begun, interrupted, resumed; the same whoever does the work; what is in doubt or missing is said."""

from __future__ import annotations

import copy
import csv
import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from memrecon_fast import attractors
from memrecon_fast.attractors import session as sessions
from memrecon_fast.attractors.basins import SHARES
from memrecon_fast.attractors.opened import Run, open_run
from memrecon_fast.attractors.report.sentences import remarks_of
from memrecon_fast.attractors.session import run
from memrecon_fast.attractors.stability import Verdict, stability
from memrecon_fast.attractors.survey import plan as plans
from memrecon_fast.attractors.survey.plan import Survey
from memrecon_fast.attractors.survey.store import TABLES
from memrecon_fast.attractors.survey.table import Table
from memrecon_fast.attractors.survey.work import Computed, Here
from memrecon_fast.audit.session import MissingImagesError
from memrecon_fast.audit.store.parts import unpack
from memrecon_fast.common.errors import AutoencoderChangedError
from memrecon_fast.images.scan import open_images
from tests.helpers.auditing import images_of
from tests.helpers.memorised import Memorised
from tests.helpers.surveying import small_survey, squares, tables_in


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that there are several."""
    monkeypatch.setitem(plans.BLOCK_ROWS, "cpu", 8)


@pytest.fixture(scope="module")
def finished(memorised: Memorised, tmp_path_factory: pytest.TempPathFactory) -> Run:
    out = tmp_path_factory.mktemp("survey") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(plans.BLOCK_ROWS, "cpu", 8)
        return run(small_survey(memorised), memorised.autoencoder, out, progress=False)


def test_the_tables_are_what_the_functions_say(memorised: Memorised, finished: Run) -> None:
    table = finished.table("stability-members")
    found = stability(memorised.autoencoder, memorised.members)
    assert table["verdict"].to_pylist() == [Verdict(verdict).name for verdict in found.verdict.tolist()]
    assert table["index"].to_pylist() == list(range(16))
    # blocks of 8 instead of a batch of 16: the last bits of products of other shapes differ
    np.testing.assert_allclose(table["radius"].to_numpy(), found.spectra.radius.numpy(), rtol=1e-3)
    first = np.array(table["real"][0].as_py()) + 1j * np.array(table["imaginary"][0].as_py())
    np.testing.assert_allclose(abs(first), found.spectra.values[0].abs().numpy(), atol=1e-3)
    assert set(finished.table("stability-controls")["verdict"].to_pylist()) == {"NO_FIXED_POINT"}


def test_what_was_harvested_are_members_and_no_controls(memorised: Memorised, finished: Run) -> None:
    rows = finished.table("harvest").to_pylist()
    members = [row for row in rows if row["member_mse"] < 5e-4]
    attractors = finished.summary["stability"][0]["attractor"]
    assert len({row["member"] for row in members}) >= 0.7 * attractors > 0
    for row in rows:
        distance = (memorised.members.double() - image_of(row)).square().flatten(1).mean(dim=1)
        assert row["member"] == int(distance.argmin())
        assert row["member_mse"] == pytest.approx(float(distance.min()), rel=1e-9)
        assert row["control_mse"] > 5e-4
        pair = np.stack([image_of(row).flatten(), memorised.members[row["member"]].flatten()])
        assert row["member_correlation"] == pytest.approx(np.corrcoef(pair)[0, 1], abs=1e-6)
    harvest = finished.summary["harvest"]
    assert harvest["starts"] == 64 == sum(row["starts"] for row in rows) + harvest["moving"] + harvest["cycles"]
    assert harvest["found"]["members"] == len({row["member"] for row in members})
    assert harvest["found"]["controls"] == 0
    alike = [row for row in rows if row["member_mse"] >= 5e-4 and row["member_correlation"] > 0.95]
    assert harvest["found"]["resemble"] == len(alike)


def image_of(row: dict[str, Any]) -> Tensor:
    return torch.from_numpy(unpack(row["image"])).double()


def test_curves_and_basins_are_what_the_functions_say(memorised: Memorised, tmp_path: Path) -> None:
    members = memorised.members[:10]
    survey = small_survey(memorised, members=10, harvest=0, curve=20, basins=("noise", "missing"), kind="gaussian")
    found = run(survey, memorised.autoencoder, tmp_path / "run", progress=False)
    curve = attractors.recovery_curve(memorised.autoencoder, members, "gaussian", count=20, rows=8)
    rows = found.table("curve")
    assert rows["nearest"].to_pylist() == curve.nearest.tolist()
    np.testing.assert_allclose(rows["nearest_mse"].to_pylist(), curve.nearest_mse, rtol=0.05, atol=1e-9)  # 1000 steps
    assert found.summary["curve"]["share"] == curve.share.tolist()
    assert found.summary["curve"]["different"] == curve.different.tolist()
    assert curve.share[-1] > 0.5
    shown = [unpack(row) for row in rows["step_picture"].to_pylist() if row is not None]
    expected = (255 * curve.one_step.clamp(0, 1)).round().to(torch.uint8)
    assert len(shown) == 12 == 20 - rows["start_picture"].null_count
    assert abs(np.stack(shown).astype(int) - expected.numpy()).max() <= 1
    for name, shares in (("noise", None), ("missing", SHARES)):
        basins = attractors.basins(memorised.autoencoder, members, shares=shares)
        table = found.table(f"basins-{name}")
        assert table["back"].to_pylist() == basins.back.tolist()
        assert table["another"].to_pylist() == basins.another.tolist()
        (said,) = (one for one in found.summary["basins"] if one["degradation"] == name)
        assert said["return"] == basins.returns.sum(dim=0).tolist()
        assert (said["median"], said["median_censoring"]) == (basins.median[0], basins.median[1].name.lower())
        sizes = [row for row in read_csv(found.path / "basins.csv") if row["degradation"] == name]
        assert [float(row["size"]) for row in sizes] == basins.size.tolist()
    assert found.summary["missing"] == {}


def read_csv(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


class Leaving(nn.Module):
    """Everything goes away from grey: away for ever, or nowhere."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, images: Tensor) -> Tensor:
        return 0.5 + self.factor * (images - 0.5)


def test_what_diverges_or_never_moved_away_is_said(memorised: Memorised, tmp_path: Path) -> None:
    members = images_of(0.01 * memorised.members)  # nearly black: erasing pixels hardly changes them
    survey = Survey({"members": members}, curve=4, basins=("missing",))
    still = run(survey, Leaving(1.0).eval(), tmp_path / "still", progress=False).summary
    assert still["basins"][0]["began_near"] == [16] * 6
    assert any("were hardly changed by it: that they come back says nothing" in one for one in remarks_of(still))
    with pytest.warns(RuntimeWarning, match="does not reconstruct the members"):
        gone = run(survey, Leaving(30.0).eval(), tmp_path / "gone", progress=False)
    assert gone.summary["curve"]["diverged"][-1] == 4
    assert gone.summary["basins"][0]["diverged"] == [16] * 6
    assert any(line.endswith("diverged.") for line in remarks_of(gone.summary))
    assert "4 diverged." in gone.report.read_text()


class Interrupted(Here):
    """Ctrl-C after so many blocks."""

    left = 0

    def compute(self, table: Table, blocks: Sequence[int]) -> Iterator[Computed]:
        for computed in super().compute(table, blocks):
            if not Interrupted.left:
                raise KeyboardInterrupt
            Interrupted.left -= 1
            yield computed


@pytest.mark.parametrize("blocks", [1, 5])
def test_an_interrupted_survey_that_goes_on_is_the_same_byte_for_byte(
    blocks: int, memorised: Memorised, finished: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(sessions, "Here", Interrupted)
        Interrupted.left = blocks
        with pytest.raises(KeyboardInterrupt):
            run(small_survey(memorised), memorised.autoencoder, out, progress=False)
    before = open_run(out).summary  # a report on what there is
    assert sum(row["images"] for row in before["stability"]) == min(8 * blocks, 22)
    assert before["missing"] == ({"stability-members": 8, "stability-controls": 6} if blocks == 1 else {})
    assert before["harvest"]["found"] is None
    assert before["harvest"]["starts"] == (0 if blocks == 1 else 16)
    went_on = run(small_survey(memorised), memorised.autoencoder, out, resume=True, progress=False)
    assert tables_in(out) == tables_in(finished.path)
    assert len(went_on.description["sessions"]) == 2
    assert sum(session["rows"] for session in went_on.description["sessions"]) == rows_of(went_on)


def test_interrupted_curves_and_basins_go_on_too(
    memorised: Memorised, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    survey = small_survey(memorised, members=10, harvest=0, curve=20, basins=("missing",), kind="images")
    whole = run(survey, memorised.autoencoder, tmp_path / "whole", progress=False)
    with monkeypatch.context() as patch:
        patch.setattr(sessions, "Here", Interrupted)
        for blocks in (4, 2):  # two of verdicts on members and one on controls come first
            Interrupted.left = blocks
            with pytest.raises(KeyboardInterrupt):
                run(survey, memorised.autoencoder, tmp_path / "run", progress=False)
    before = open_run(tmp_path / "run").summary
    assert before["curve"]["starts"] in (8, 16, 20)
    again = run(dataclasses.replace(survey, slots=12), memorised.autoencoder, tmp_path / "run", progress=False)
    for name in ("curve", "basins-missing"):
        assert again.table(name).equals(whole.table(name))


def rows_of(found: Run) -> int:
    return sum(len(found.table(name)) for name in ("stability-members", "stability-controls", "starts", "harvest"))


def test_a_finished_survey_is_not_worked_on_again(memorised: Memorised, finished: Run) -> None:
    before = (tables_in(finished.path), finished.description["sessions"])
    again = run(small_survey(memorised), memorised.autoencoder, finished.path, progress=False)
    assert (tables_in(finished.path), again.description["sessions"]) == before


def test_damaged_blocks_are_said_and_done_again(
    memorised: Memorised, finished: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(sessions, "Here", Interrupted)
        Interrupted.left = 4
        with pytest.raises(KeyboardInterrupt):
            run(small_survey(memorised), memorised.autoencoder, out, progress=False)
    complete, block = out / TABLES / "stability-controls.parquet", out / TABLES / "starts" / "000000.parquet"
    for path in (complete, block):
        path.write_bytes(path.read_bytes()[:-9])
    (out / ".attractors.json.123.tmp").write_text("half of it")  # of a process that was killed
    with pytest.raises(ValueError, match=r"stability-controls\.parquet cannot be read"):
        open_run(out).table("stability-controls")
    with pytest.warns(RuntimeWarning, match="cannot be read.*is set aside, and what it held is done again") as said:
        run(small_survey(memorised), memorised.autoencoder, out, progress=False)
    assert sum("is set aside" in str(warning.message) for warning in said) == 2
    again = tables_in(out)
    aside = {name for name in again if "_aside" in name}
    assert len(aside) == 2
    assert {name: again[name] for name in again.keys() - aside} == tables_in(finished.path)


def test_another_survey_in_the_folder_is_refused_and_says_what_differs(memorised: Memorised, finished: Run) -> None:
    for changes, words in (
        ({"seed": 7}, r"seed \(42 then, 7 now\)"),
        ({"harvest": 65}, r"harvest \(64 then, 65 now\)"),
        ({"controls": 5}, "the controls"),
        ({"kind": "uniform"}, r'kind \("smooth" then, "uniform" now\)'),
    ):
        with pytest.raises(ValueError, match=f"holds another survey of attractors.*What differs: {words}"):
            run(small_survey(memorised, **changes), memorised.autoencoder, finished.path, progress=False)
    other = nn.Sequential(nn.Flatten(), nn.Linear(192, 192), nn.Unflatten(1, (3, 8, 8))).eval()
    with pytest.raises(ValueError, match="the model's weights or layers"):
        run(small_survey(memorised), other, finished.path, progress=False)


class Stopping:
    """Enough after the block that holds an index."""

    def __init__(self, last: int) -> None:
        self.last, self.seen = last, list[int]()

    def add(self, rows: pa.Table) -> bool:
        self.seen += rows["index"].to_pylist()
        return self.last in self.seen


class Backwards(Here):
    """As workers may be ahead: the last block comes first."""

    def compute(self, table: Table, blocks: Sequence[int]) -> Iterator[Computed]:
        return super().compute(table, blocks[::-1])


@pytest.mark.parametrize("workforce", [Here, Backwards])
def test_a_table_ends_at_the_same_block_whoever_is_ahead(
    workforce: type[Here], memorised: Memorised, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = squares(80, 8, stop=lambda: Stopping(20))
    monkeypatch.setattr(sessions, "Here", workforce)
    monkeypatch.setattr(sessions, "tables_of", lambda *_: iter([table]))
    with sessions.begin(small_survey(memorised), memorised.autoencoder, tmp_path / "run", sessions.Means()) as session:
        with session._noted() as note:
            session._do(table, note, [])
        assert session.store.read("squares", table.schema)["index"].to_pylist() == list(range(24))


def test_images_that_cannot_be_read_any_more_leave_their_blocks_undone(memorised: Memorised, tmp_path: Path) -> None:
    np.save(tmp_path / "members.npy", memorised.members.numpy())
    survey = Survey({"members": open_images(tmp_path / "members.npy")})
    changed = memorised.members.clone()
    changed[9] += 0.01
    np.save(tmp_path / "members.npy", changed.clamp(0, 1).numpy())
    with pytest.raises(MissingImagesError, match=r"images could not be read, first: .*9.* has changed"):
        run(survey, memorised.autoencoder, tmp_path / "run", progress=False)
    opened = open_run(tmp_path / "run")
    assert opened.table("stability-members")["index"].to_pylist() == list(range(8))
    assert opened.summary["missing"] == {"stability-members": 8}
    np.save(tmp_path / "members.npy", memorised.members.numpy())
    assert len(run(survey, memorised.autoencoder, tmp_path / "run", progress=False).table("stability-members")) == 16


class Drifting(nn.Module):
    """Answers otherwise after some calls: by another factor, or by other weights."""

    def __init__(self, inner: nn.Module, calls: int, weights: bool) -> None:
        super().__init__()
        self.inner, self.calls, self.made, self.weights = inner, calls, 0, weights

    def forward(self, images: Tensor) -> Tensor:
        self.made += 1
        if self.made == self.calls and self.weights:
            with torch.no_grad():
                next(self.inner.parameters()).mul_(1.001)
        found: Tensor = self.inner(images)
        return found if self.made < self.calls or self.weights else found * 1.001


def test_a_model_that_changes_puts_the_results_in_doubt(memorised: Memorised, tmp_path: Path) -> None:
    survey = small_survey(memorised, controls=0, harvest=0)
    weights = Drifting(copy.deepcopy(memorised.autoencoder), 200, weights=True).eval()
    with pytest.raises(
        AutoencoderChangedError, match="the weights of the model were changed"
    ):  # it is noticed before the end
        run(survey, weights, tmp_path / "weights", progress=False)
    assert open_run(tmp_path / "weights").description["sessions"][0]["doubts"]
    model = Drifting(copy.deepcopy(memorised.autoencoder), 200, weights=False).eval()
    with pytest.raises(AutoencoderChangedError, match="the results are in doubt"):
        run(survey, model, tmp_path / "run", progress=False)
    assert model.made > 200
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["doubts"]
    assert "These results are in doubt" in (tmp_path / "run" / "report.html").read_text()


def test_what_does_not_fit_is_refused_before_any_work(memorised: Memorised, tmp_path: Path) -> None:
    members = images_of(memorised.members)

    class Detached(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images.detach() * 0.5

    half = nn.Sequential(nn.Flatten(), nn.Linear(192, 192), nn.Unflatten(1, (3, 8, 8))).half().eval()
    for model, words in (
        (Detached().eval(), "Detached: autoencoder's gradients are not those of the function"),
        (half, "float32"),
        (copy.deepcopy(memorised.autoencoder).train(), "training mode"),
    ):
        with pytest.raises((TypeError, ValueError), match=words):
            run(Survey({"members": members}), model, tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()
    for arguments, words in (
        ({}, "without members"),
        ({"image_shape": (3, 8, 8)}, "harvest must say from how many starts"),
        ({"splits": {"controls": members}}, "controls are compared with members"),
        ({"splits": {"members": members}, "harvest": 5, "kind": "images"}, "made of controls"),
        ({"image_shape": (3, 8, 8), "harvest": 5, "curve": 5}, "a recovery curve and basins are about members"),
        ({"splits": {"members": members}, "basins": ("nose",)}, "did you mean 'noise'"),
        ({"splits": {"members": members}, "kind": "smoth"}, "did you mean 'smooth'"),
        ({"splits": {"members": members}, "k": 0}, "k must be at least 1"),
    ):
        with pytest.raises(ValueError, match=words):
            Survey(**arguments)


def test_one_image_of_one_pixel(tmp_path: Path) -> None:
    class Halfway(nn.Module):
        """To the image: an attractor with the eigenvalue ½."""

        def forward(self, images: Tensor) -> Tensor:
            return 100 / 255 / 2 + images / 2

    (tmp_path / "images").mkdir()
    Image.new("L", (1, 1), 100).save(tmp_path / "images" / "grey.png")
    survey = Survey({"members": open_images(tmp_path / "images")}, harvest=8)
    assert survey.shape == (1, 1, 1)
    found = run(survey, Halfway().eval(), tmp_path / "run", progress=False)
    (row,) = found.table("stability-members").to_pylist()
    assert (row["verdict"], row["radius"]) == ("ATTRACTOR", pytest.approx(0.5))
    assert found.summary["harvest"]["found"]["members"] == 1
    assert found.summary["harvest"]["found"]["fixed_points"] == 1
    assert found.report.exists()


def test_a_harvest_without_any_image(memorised: Memorised, finished: Run, tmp_path: Path) -> None:
    survey = Survey(image_shape=(3, 8, 8), harvest=64)
    found = run(survey, memorised.autoencoder, tmp_path / "run", progress=False)
    known = finished.table("harvest")
    ours = found.table("harvest")
    for column in ("image", "starts", "first_start", "verdict", "radius"):
        assert ours[column].equals(known[column])
    assert ours["member"].null_count == len(ours)
    assert found.summary["harvest"]["found"]["others"] is None
    assert found.summary["stability"] == []
    page = found.report.read_text()
    assert "came out of nothing" in page
    assert "nearest member" not in page

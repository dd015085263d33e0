from __future__ import annotations

import dataclasses
import json
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from rich.console import Console
from torch import Tensor, nn

import memrecon_fast as mf
from memrecon_fast.audit.analysis.given_out import choose_given_out
from memrecon_fast.audit.analysis.statistics import choose_shown
from memrecon_fast.audit.plan import ALL_IMAGES, DEGRADED_MASK, Audit
from memrecon_fast.audit.session import MissingImagesError, missing, run_audit
from memrecon_fast.audit.store.opening import IMAGES
from memrecon_fast.audit.store.parts import ASIDE, Parts
from memrecon_fast.audit.store.records import MAX_PSNR, RECORDS, Cell, cell_path
from memrecon_fast.images.scan import open_images, read_images, scan
from memrecon_fast.images.sources import Source, from_array, from_iterable
from memrecon_fast.methods import METHODS
from memrecon_fast.results import noise_floor
from tests.helpers.auditing import (
    MASKS,
    NEVER,
    SETTINGS,
    SHAPE,
    Interruption,
    contents,
    folder_of,
    images_of,
    read_all,
    run,
    small_audit,
)
from tests.helpers.memorised import Memorised

CONTROLS = 5
HALF = {"half": mf.degradation.make_mask("half", SHAPE)}
CELLS_IMAGES = 16 + CONTROLS  # one mask: so many recoveries by each method


def audit_to_interrupt(memorised: Memorised, **changes: Any) -> Audit:
    masks = {"center": mf.degradation.make_mask("center", SHAPE)}
    return small_audit(memorised, controls=CONTROLS, masks=masks, keep_images=2, **changes)


@pytest.fixture(scope="module")
def finished(memorised: Memorised, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("all") / "run"
    assert run(small_audit(memorised), memorised.autoencoder, path) == []
    return path


@pytest.fixture(scope="module")
def undisturbed(memorised: Memorised, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of `audit_to_interrupt`, done in one go."""
    path = tmp_path_factory.mktemp("undisturbed") / "run"
    run(audit_to_interrupt(memorised), memorised.autoencoder, path)
    files = contents(path)
    folders = {name.split("/")[0] for name in files}
    assert folders == {"images.parquet", "records", "gallery", "sheet", "recovered"}
    assert len(files) == 1 + 6 + 6 + 1 + 6 * 3  # a sheet of members alone
    return files


@pytest.mark.parametrize("noise_std", [0.0, 0.02])
@pytest.mark.parametrize("method", ["accelerated", "paper", "known-mask", "iterate"])
def test_records_say_what_recover_and_iterate_say(
    memorised: Memorised, tmp_path: Path, method: str, noise_std: float
) -> None:
    audit = small_audit(memorised, methods=(method,), noise_std=noise_std)
    run(audit, memorised.autoencoder, tmp_path)
    cells = read_all(tmp_path, audit.cells())
    assert set(cells) == set(audit.cells())
    for cell, columns in cells.items():
        images = getattr(memorised, cell.split)
        mask = audit.masks[cell.mask]
        expected = expected_recovery(memorised, images, mask, method, noise_std)
        mse = mf.metrics.mse(expected.images, images).numpy()
        np.testing.assert_array_equal(columns["index"], np.arange(len(images)))
        assert list(columns["name"]) == [str(index) for index in range(len(images))]
        assert list(columns["sha256"]) == list(audit.splits[cell.split].sha256)
        for name in ("split", "mask", "method"):
            assert set(columns[name]) == {getattr(cell, name)}
        # the estimates are the same bit for bit, whatever their neighbours in the slots; the sums are in another order
        np.testing.assert_allclose(columns["mse"], mse, rtol=1e-14)
        np.testing.assert_array_equal(columns["evaluations"], expected.evaluations.numpy())
        np.testing.assert_array_equal(columns["outer_iterations"], expected.outer_iterations.numpy())
        np.testing.assert_array_equal(columns["residual"], expected.residual.double().numpy())
        for name in ("fixed_point_mse", "misfit", "explained", "score"):
            np.testing.assert_array_equal(columns[name], getattr(expected, name).double().numpy())
        for name in ("attempts", "accepted", "rejected", "mask_changes"):
            np.testing.assert_array_equal(columns[name], getattr(expected, name).numpy())
        np.testing.assert_allclose(columns["gamma"].astype(float), expected.gamma, rtol=1e-7)  # NaN of "iterate"
        np.testing.assert_array_equal(columns["accurate"], mse < 1e-7)
        np.testing.assert_array_equal(columns["approximate"], mse < 5e-4)
        assert not columns["diverged"].any()
        assert list(columns["status"]) == [mf.Status(int(status)).name for status in expected.status]
        clipped = mf.metrics.psnr(expected.images.clamp(0, 1), images).clamp(max=MAX_PSNR)
        np.testing.assert_allclose(columns["psnr"], clipped, rtol=1e-12)
        if METHODS[method].mask == "estimated":
            wrong = (expected.masks != mask).flatten(1).double().mean(1)
            np.testing.assert_allclose(columns["wrong_mask_share"], wrong, rtol=1e-14)
        else:
            assert np.isnan(columns["wrong_mask_share"].astype(float)).all()


def expected_recovery(
    memorised: Memorised, images: Tensor, mask: Tensor, method: str, noise_std: float = 0.0
) -> mf.Recovery:
    degraded = mf.degradation.erase(images, mask, noise_std, SETTINGS.seed)
    if method == "iterate":
        return mf.iterate(memorised.autoencoder, degraded, 1000, 1e-12, "torch")
    solver = "accelerated" if method == "accelerated" else "paper"
    settings = dataclasses.replace(SETTINGS, restore_known_pixels=noise_std == 0, solver=solver)
    return mf.recover(memorised.autoencoder, degraded, mask if method == "known-mask" else None, settings, "torch")


def test_members_come_back_and_controls_do_not(memorised: Memorised, finished: Path) -> None:
    cells = read_all(finished, small_audit(memorised).cells())
    recovered = {cell: columns["approximate"].sum() for cell, columns in cells.items()}
    for mask in MASKS:
        assert recovered[Cell("members", mask, "paper")] > recovered[Cell("members", mask, "iterate")]
        for method in ("paper", "known-mask", "iterate"):
            assert recovered[Cell("controls", mask, method)] == 0


def test_all_records_can_be_read_as_one_table(finished: Path) -> None:
    table = pq.read_table(finished / RECORDS)
    assert len(table) == 2 * len(MASKS) * 3 * 16
    rows = {(row["split"], row["mask"], row["method"], row["index"]) for row in table.to_pylist()}
    assert len(rows) == len(table)


@pytest.mark.parametrize(("method", "noise_std"), [("accelerated", 0.0), ("known-mask", 0.0), ("accelerated", 0.02)])
def test_degraded_images_are_recovered_as_they_are(
    memorised: Memorised, tmp_path: Path, method: str, noise_std: float
) -> None:
    """As `recover` does it of the same images; no record knows of an original; noise that is stated is not added."""
    mask = mf.degradation.make_mask("random-50", SHAPE)
    given = {
        split: mf.degradation.erase(getattr(memorised, split), mask, noise_std).clamp(0, 1)
        for split in ("members", "controls")
    }
    known = mask if method == "known-mask" else torch.ones(SHAPE, dtype=torch.bool)
    splits = {split: images_of(images) for split, images in given.items()}
    audit = small_audit(
        memorised, splits=splits, masks={DEGRADED_MASK: known}, methods=(method,), noise_std=noise_std, degraded=True,
        keep_images=3,
    )  # fmt: skip
    run(audit, memorised.autoencoder, tmp_path)
    for cell, columns in read_all(tmp_path, audit.cells()).items():
        known_mask = mask if method == "known-mask" else None
        solver = "paper" if method == "known-mask" else method
        below = SETTINGS.recognized_below + noise_floor(noise_std, 192, 192)
        settings = dataclasses.replace(audit.settings, solver=solver, recognized_below=below)
        expected = mf.recover(memorised.autoencoder, given[cell.split], known_mask, settings, "torch")
        for name in ("fixed_point_mse", "misfit", "score", "residual"):
            np.testing.assert_array_equal(columns[name], getattr(expected, name).double().numpy())
        for name in ("mse", "psnr", "wrong_mask_share"):
            assert np.isnan(columns[name]).all()
        for name in ("accurate", "approximate"):
            assert set(columns[name]) == {None}
        scores = expected.score.numpy()
        assert ((scores < 1e-4 + 1.2 * noise_std**2) == (cell.split == "members")).all()
        order = np.argsort(scores)
        shown = {picture.index: picture for picture in folder_of(tmp_path).pictures(cell, range(16))}
        assert {*order[:4], *order[-4:]} <= set(shown)  # the best and the worst, by their scores
        for index, picture in shown.items():
            expected_pixels = (given[cell.split][index] * 255).round().byte().numpy()
            np.testing.assert_array_equal(picture.degraded, expected_pixels)
        kept = np.load(tmp_path / "recovered" / f"{cell.file_stem}.index.npy")
        assert set(kept) == {*order[:3], *order[-3:]}
    duplicates = read_images(tmp_path / IMAGES)["near_duplicate_of"]
    assert set(duplicates) == {None}


def test_near_duplicates_are_not_looked_for_among_degraded_images(memorised: Memorised, tmp_path: Path) -> None:
    """Under a hard mask everything is nearly black."""
    given = images_of(0.01 * memorised.members)
    masks = {DEGRADED_MASK: mf.degradation.make_mask("half", SHAPE)}
    for degraded, found in ((True, False), (False, True)):
        audit = small_audit(memorised, splits={"members": given, "controls": given}, methods=("paper",))
        audit = dataclasses.replace(audit, masks=masks, degraded=degraded)
        run(audit, memorised.autoencoder, tmp_path / str(degraded))
        duplicates = read_images(tmp_path / str(degraded) / IMAGES)["near_duplicate_of"]
        assert any(name is not None for name in duplicates) == found


class Exploding(nn.Module):
    """Finite for what the checks try; leaves the range of float32 after a few dozen iterations."""

    def forward(self, images: Tensor) -> Tensor:
        return 30 * images + 1


def test_a_diverged_estimate_counts_as_not_recovered(memorised: Memorised, tmp_path: Path) -> None:
    seen = Interruption()
    audit = small_audit(memorised, methods=("iterate", "paper"))
    run(audit, Exploding().eval(), tmp_path, report=seen)
    assert len(seen.records) == 2 * 2 * 2 * 16
    assert all(record.diverged and record.status == "DIVERGED" for record in seen.records)
    assert not any(record.accurate or record.approximate for record in seen.records)
    for columns in read_all(tmp_path, audit.cells()).values():
        assert columns["diverged"].all()
        assert (columns["psnr"] < 33).all()


class NotANumberForBrightOnes(nn.Module):
    """What `autoencoder` says, but NaN for inputs that are bright."""

    def __init__(self, autoencoder: nn.Module) -> None:
        super().__init__()
        self.autoencoder = autoencoder

    def forward(self, images: Tensor) -> Tensor:
        bright = images.mean(dim=(1, 2, 3), keepdim=True) > 0.55
        return torch.where(bright, torch.nan, self.autoencoder(images))


def test_images_for_which_the_model_says_nan_do_not_touch_the_others(
    memorised: Memorised, finished: Path, tmp_path: Path
) -> None:
    audit = small_audit(memorised, keep_images=2)
    run(audit, NotANumberForBrightOnes(memorised.autoencoder).eval(), tmp_path)
    undisturbed = read_all(finished, audit.cells())
    some = 0
    for cell, columns in read_all(tmp_path, audit.cells()).items():
        diverged = columns["diverged"]
        some += 0 < diverged.sum() < len(diverged)
        assert set(columns["status"][diverged]) <= {"DIVERGED"}
        assert not columns["approximate"][diverged].any()
        for name, column in columns.items():
            np.testing.assert_array_equal(column[~diverged], undisturbed[cell][name][~diverged])
    assert some >= 6  # of 12 cells: both happen in the same one


def test_equal_images_have_the_greatest_psnr_there_is(memorised: Memorised, tmp_path: Path) -> None:
    """They are black where the mask erases, and the model leaves every image as it is."""
    black = images_of(mf.degradation.erase(memorised.members, mf.degradation.make_mask("center", SHAPE)))
    audit = small_audit(memorised, methods=("known-mask",), splits={"members": black})
    run(audit, nn.Identity().eval(), tmp_path)
    columns = folder_of(tmp_path).read(Cell("members", "center", "known-mask"))
    assert (columns["mse"] == 0).all()
    assert (columns["psnr"] == MAX_PSNR).all()
    assert (columns["erased_mse"] == 0).all()


@pytest.mark.parametrize(
    ("after", "seconds"),
    [
        *((after, 0) for after in (0, 10, CELLS_IMAGES + 18, 2 * CELLS_IMAGES + 10)),
        *((after, NEVER) for after in (0, 17, 2 * CELLS_IMAGES + 3)),
    ],
)
def test_a_run_that_was_interrupted_ends_like_an_undisturbed_one(
    memorised: Memorised, undisturbed: dict[str, bytes], tmp_path: Path, after: int, seconds: float
) -> None:
    audit = audit_to_interrupt(memorised)
    first, second = Interruption(after), Interruption()
    with pytest.raises(KeyboardInterrupt):
        run(audit, memorised.autoencoder, tmp_path, report=first, seconds=seconds)
    done = {cell: folder_of(tmp_path).done(cell).tolist() for cell in audit.cells()}
    assert sum(map(len, done.values())) == after + 1  # the one at which it was interrupted is saved as well
    assert run(audit, memorised.autoencoder, tmp_path, report=second, seconds=seconds) == []
    keys = [(record.split, record.mask, record.method, record.index) for record in first.records + second.records]
    assert len(set(keys)) == len(keys) == 3 * CELLS_IMAGES - 1
    assert contents(tmp_path) == undisturbed


@pytest.mark.parametrize("methods", [("paper", "known-mask", "iterate"), ("iterate", "known-mask", "paper")])
def test_a_run_that_was_interrupted_again_and_again(
    memorised: Memorised, undisturbed: dict[str, bytes], tmp_path: Path, methods: tuple[str, ...]
) -> None:
    audit = audit_to_interrupt(memorised, methods=methods)
    records = 0
    for _ in range(20):
        interruption = Interruption(7)
        try:
            run(audit, memorised.autoencoder, tmp_path, report=interruption)
        except KeyboardInterrupt:
            records += len(interruption.records) + 1
            continue
        records += len(interruption.records)
        break
    assert records == 3 * CELLS_IMAGES
    assert contents(tmp_path) == undisturbed


def test_what_is_complete_is_left_alone(memorised: Memorised, tmp_path: Path) -> None:
    audit = audit_to_interrupt(memorised)
    run(audit, memorised.autoencoder, tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.suffix in (".parquet", ".npz")}
    again = Interruption(0)  # would interrupt at the first record
    run(audit, memorised.autoencoder, tmp_path, report=again)
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_a_part_that_was_written_twice_counts_once(
    memorised: Memorised, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    """A worker that was given up may have lived, and have written what another one was given as well."""
    audit = audit_to_interrupt(memorised)
    with pytest.raises(KeyboardInterrupt):
        run(audit, memorised.autoencoder, tmp_path, report=Interruption(10), seconds=0)
    (members,) = (path for path in (tmp_path / RECORDS).iterdir() if path.name.startswith("members"))
    for number, part in enumerate(sorted(members.iterdir())[::2]):
        (members / f"{number}{part.name}").write_bytes(part.read_bytes())
    assert folder_of(tmp_path).done(Cell("members", "center", "paper")).size == 11
    run(audit, memorised.autoencoder, tmp_path)
    assert contents(tmp_path) == undisturbed


@pytest.mark.parametrize("damage", ["cut short", "flipped", "emptied"])
def test_what_a_damaged_part_held_is_done_again(
    memorised: Memorised, undisturbed: dict[str, bytes], tmp_path: Path, damage: str
) -> None:
    audit = audit_to_interrupt(memorised)
    with pytest.raises(KeyboardInterrupt):
        run(audit, memorised.autoencoder, tmp_path, report=Interruption(CELLS_IMAGES + 3), seconds=0)
    part = sorted((tmp_path / RECORDS).glob("members.known-mask.center/*"))[1]
    content = bytearray(part.read_bytes())
    if damage == "flipped":
        content[50] ^= 8
    part.write_bytes(content if damage == "flipped" else content[: len(content) // 2] if damage == "cut short" else b"")
    again = Interruption()
    (remark,) = run(audit, memorised.autoencoder, tmp_path, report=again)
    assert part.name in remark
    assert remark.endswith("what it held is done again")
    assert len(again.records) == 3 * CELLS_IMAGES - (CELLS_IMAGES + 4) + 1
    forget_what_was_set_aside(tmp_path)
    assert contents(tmp_path) == undisturbed


def forget_what_was_set_aside(path: Path) -> None:
    """Remove the one file of records that is kept though it is damaged."""
    (aside,) = (path / RECORDS / ASIDE).iterdir()
    aside.unlink()


@pytest.mark.parametrize("method", ["paper", "iterate"])
def test_a_complete_cell_that_is_damaged_is_done_again(
    memorised: Memorised, undisturbed: dict[str, bytes], tmp_path: Path, method: str
) -> None:
    audit = audit_to_interrupt(memorised)
    run(audit, memorised.autoencoder, tmp_path)
    path = cell_path(tmp_path, Cell("members", "center", method))
    path.write_bytes(path.read_bytes()[:-100])
    again = Interruption()
    (remark,) = run(audit, memorised.autoencoder, tmp_path, report=again)
    assert str(path) in remark
    assert {(record.split, record.method) for record in again.records} == {("members", method)}
    assert sorted(record.index for record in again.records) == list(range(16))
    forget_what_was_set_aside(tmp_path)
    assert contents(tmp_path) == undisturbed


def test_a_disk_that_is_full_costs_what_could_not_be_written(
    memorised: Memorised, undisturbed: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resource = pytest.importorskip("resource")
    audit = audit_to_interrupt(memorised)
    write = Parts.write
    written = 0

    def write_little(parts: Parts, cell: Cell, rows: list[object]) -> None:
        nonlocal written
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        try:
            if written == 5:  # as where the disk is full, the system refuses to write
                resource.setrlimit(resource.RLIMIT_FSIZE, (500, hard))
            write(parts, cell, rows)  # type: ignore[arg-type]
            written += 1
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    with monkeypatch.context() as patch:
        patch.setattr(Parts, "write", write_little)
        with pytest.raises(OSError, match="File too large"):
            run(audit, memorised.autoencoder, tmp_path, seconds=0)
    cell = Cell("members", "center", "paper")
    assert len(folder_of(tmp_path).done(cell)) == 5
    assert len(list((tmp_path / RECORDS / cell.file_stem).iterdir())) == 5
    run(audit, memorised.autoencoder, tmp_path)
    assert contents(tmp_path) == undisturbed


MANY = 10**9


class Tiring(nn.Module):
    """Is `autoencoder`, and fails after some forward passes."""

    def __init__(self, autoencoder: nn.Module, passes: int) -> None:
        super().__init__()
        self.autoencoder, self.passes = autoencoder, passes

    def forward(self, images: Tensor) -> Tensor:
        self.passes -= 1
        if self.passes < 0:
            raise RuntimeError("the model is tired")
        result: Tensor = self.autoencoder(images)
        return result


def test_what_was_done_before_the_model_failed_is_kept(memorised: Memorised, tmp_path: Path) -> None:
    audit = audit_to_interrupt(memorised)
    model = Tiring(memorised.autoencoder, MANY).eval()
    run(audit, model, tmp_path / "undisturbed")
    model.passes = (MANY - model.passes) // 2
    with pytest.raises(RuntimeError, match="the model is tired"):
        run(audit, model, tmp_path / "run")
    model.passes = MANY
    done = sum(folder_of(tmp_path / "run").done(cell).size for cell in audit.cells())
    assert 0 < done < 3 * CELLS_IMAGES
    again = Interruption()
    run(audit, model, tmp_path / "run", report=again)
    assert len(again.records) == 3 * CELLS_IMAGES - done
    assert contents(tmp_path / "run") == contents(tmp_path / "undisturbed")


def test_an_image_that_cannot_be_read_any_more_is_done_once_it_can(
    memorised: Memorised, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    """It is lost after all members were read for the estimates to be compared with."""
    lost: set[int] = set()
    reads = 0
    array = from_array(memorised.members.numpy())

    def read(index: int) -> np.ndarray:
        nonlocal reads
        if index in lost:
            reads += 1
            if reads > 1:
                raise ValueError("it is gone")
        return array.read(index)

    members = scan(Source(array.names, read))
    audit = audit_to_interrupt(memorised)
    audit = dataclasses.replace(audit, splits={**audit.splits, "members": members})
    best = choose_shown_of(undisturbed, tmp_path)
    lost |= {best}
    skipped = run(audit, memorised.autoencoder, tmp_path / "run")
    assert skipped == 3 * [f"{best} cannot be used any more: it is gone"]
    for cell in audit.cells():
        assert missing(audit, folder_of(tmp_path / "run"), cell.method).get(cell) == (
            [best] if cell.split == "members" else None
        )
        done = folder_of(tmp_path / "run").read(cell)["index"].tolist()
        assert done == [
            index for index in range(len(audit.splits[cell.split])) if index != best or cell.split != "members"
        ]
    lost.clear()
    again = Interruption()
    assert run(audit, memorised.autoencoder, tmp_path / "run", report=again) == []
    assert [record.index for record in again.records] == 3 * [best]
    assert contents(tmp_path / "run") == undisturbed


def choose_shown_of(files: dict[str, bytes], tmp_path: Path) -> int:
    """The best member of the method that the gallery's choice is made by."""
    path = cell_path(tmp_path, Cell("members", "center", "paper"))
    path.parent.mkdir()
    path.write_bytes(files[f"{RECORDS}/{path.name}"])
    shown = choose_shown(folder_of(tmp_path).read(Cell("members", "center", "paper")))
    return next(index for index, group in shown.items() if group == "best")


def test_an_image_that_cannot_be_used_is_never_tried(memorised: Memorised, tmp_path: Path) -> None:
    array = from_array(memorised.members.numpy())
    tried: list[int] = []

    def read(index: int) -> np.ndarray:
        tried.append(index)
        if index in (0, 7):
            raise ValueError("it is no image")
        return array.read(index)

    audit = small_audit(memorised, splits={"members": scan(Source(array.names, read))}, methods=("iterate",))
    tried.clear()
    assert run(audit, memorised.autoencoder, tmp_path) == []
    assert sorted(tried) == sorted(
        [index for index in range(16) if index not in (0, 7)] * (1 + len(MASKS))
    )  # once to compare with
    for cell in audit.cells():
        assert folder_of(tmp_path).is_complete(cell)
        assert folder_of(tmp_path).done(cell).tolist() == audit.splits["members"].usable()


@pytest.mark.parametrize("count", [0, 3, ALL_IMAGES])
def test_the_best_and_the_worst_estimates_are_kept_as_they_are(
    memorised: Memorised, tmp_path: Path, count: int
) -> None:
    audit = audit_to_interrupt(memorised)
    audit = dataclasses.replace(audit, keep_images=count)
    run(audit, memorised.autoencoder, tmp_path)
    if not count:
        assert not (tmp_path / "recovered").exists()
        return
    for cell in audit.cells():
        images = audit.splits[cell.split].stack()
        expected = expected_recovery(memorised, images, audit.masks[cell.mask], cell.method)
        ascending = mf.metrics.mse(expected.images, images).argsort(stable=True).tolist()
        kept = sorted({*ascending[:count], *ascending[-count:]})
        index, estimates, masks = (
            np.load(tmp_path / "recovered" / f"{cell.file_stem}.{what}.npy") for what in ("index", "images", "masks")
        )
        assert index.tolist() == kept
        assert (estimates.dtype, masks.dtype) == (np.float32, np.bool_)
        np.testing.assert_array_equal(estimates, expected.images[kept].numpy())
        np.testing.assert_array_equal(masks, expected.masks[kept].numpy())


def test_the_gallery_shows_of_all_methods_what_the_first_one_chose(memorised: Memorised, finished: Path) -> None:
    audit = small_audit(memorised)
    folder = folder_of(finished)
    for cell in audit.cells():
        headline = folder.read(Cell(cell.split, cell.mask, "paper"))
        shown = choose_shown(headline)
        assert len(shown) == 12
        pictures = folder.pictures(cell, range(16))
        columns = folder.read(cell)
        given_out = columns["index"][choose_given_out(columns)].tolist()
        assert [picture.index for picture in pictures] == sorted({*shown, *given_out})
        images = audit.splits[cell.split].stack()
        expected = expected_recovery(memorised, images, audit.masks[cell.mask], cell.method)
        degraded = mf.degradation.erase(images, audit.masks[cell.mask])
        for picture in pictures:
            for ours, theirs in (
                (picture.original, images),
                (picture.degraded, degraded),
                (picture.recovered, expected.images),
                (picture.mask, expected.masks.float()),
            ):
                shade = (theirs[picture.index].clamp(0, 1) * 255).round().byte().numpy()
                np.testing.assert_array_equal(ours, shade)


def test_how_each_method_was_run_is_returned(memorised: Memorised, tmp_path: Path) -> None:
    audit = audit_to_interrupt(memorised)
    order: list[str] = []

    def work(method: str, shards: object, wanted: object) -> str:
        order.append(method)
        assert (wanted is None) == (method == "paper")
        return f"as {method} is run"

    audit = dataclasses.replace(audit, methods=("iterate", "paper"))
    assert run_audit(audit, folder_of(tmp_path), work) == {
        "iterate": "as iterate is run",
        "paper": "as paper is run",
    }
    assert order == ["paper", "iterate"]


def test_no_more_images_are_read_than_are_soon_needed(memorised: Memorised, tmp_path: Path) -> None:
    from memrecon_fast.audit.worker import COMPARED_AT_ONCE, READ_AHEAD

    members = from_array(memorised.members.numpy())
    underway = most = reads = 0

    def read(index: int) -> np.ndarray:
        nonlocal underway, most, reads
        reads += 1
        if reads <= 300:  # once each, as the estimates are compared with all members
            return members.read(index % 16)
        underway += 1
        most = max(most, underway)
        return members.read(index % 16)

    def report(_: object) -> None:
        nonlocal underway
        underway -= 1

    watched = scan(Source(tuple(map(str, range(300))), read))
    underway = most = reads = 0
    audit = small_audit(memorised, splits={"members": watched}, slots=16, methods=("known-mask",))
    run(audit, memorised.autoencoder, tmp_path, report=report)
    assert 16 < most <= 16 + READ_AHEAD + COMPARED_AT_ONCE + 2  # which wait to be compared with all members
    assert underway == 0


def test_masks_whose_names_are_awkward_have_files_of_their_own(memorised: Memorised, tmp_path: Path) -> None:
    mask = mf.degradation.make_mask("half", SHAPE)
    names = ("a b.png", "a_b.png", "../up.png", "half", "記" * 80 + "一.png", "記" * 80 + "二.png")
    audit = small_audit(memorised, masks=dict.fromkeys(names, mask), methods=("known-mask",), keep_images=1)
    run(audit, memorised.autoencoder, tmp_path / "run")
    cells = read_all(tmp_path / "run", audit.cells())
    assert {cell.mask for cell in cells} == set(names)
    for folder, files in (("records", 1), ("gallery", 1), ("recovered", 3)):
        assert len(list((tmp_path / "run" / folder).iterdir())) == 2 * len(names) * files
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_parts_elsewhere_leave_the_run_as_it_is(
    memorised: Memorised, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    audit = audit_to_interrupt(memorised)
    parts = (tmp_path / "elsewhere").as_uri()
    with pytest.raises(KeyboardInterrupt):
        run(audit, memorised.autoencoder, tmp_path / "run", report=Interruption(30), parts=parts)
    assert list((tmp_path / "elsewhere").rglob("*.parquet"))
    run(audit, memorised.autoencoder, tmp_path / "run", parts=parts)
    assert not list((tmp_path / "elsewhere").rglob("*.parquet"))
    assert contents(tmp_path / "run") == undisturbed


def test_an_audit_from_python_of_any_iterable(memorised: Memorised, tmp_path: Path) -> None:
    def my_images() -> Iterator[Tensor]:
        yield from memorised.members

    members = scan(from_iterable(my_images(), tmp_path / "members.npy"))
    audit = Audit({"members": members}, HALF, ("paper", "iterate"), SETTINGS)
    console = Console(record=True, width=200)
    report = mf.audit.run(audit, memorised.autoencoder, tmp_path / "run", progress=console).report
    assert report == tmp_path / "run" / "report.html"
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["model"] == "Sequential"
    degraded = mf.degradation.erase(memorised.members, HALF["half"])
    recovery = mf.recover(memorised.autoencoder, degraded, None, SETTINGS)
    rate = mf.metrics.recovery_rate(mf.metrics.mse(recovery.images, memorised.members), mf.metrics.APPROXIMATE_MSE)
    (row,) = [row for row in summary["rows"] if row["method"] == "paper"]
    assert row["approximate_rate"] == rate > 0.3
    mf.audit.run(audit, memorised.autoencoder, tmp_path / "run", progress=console)
    assert "32 of 32 recoveries were done before" in console.export_text()
    assert len(json.loads((tmp_path / "run" / "summary.json").read_text())["sessions"]) == 1


def test_what_is_missing_in_the_end_is_said_after_the_report(memorised: Memorised, tmp_path: Path) -> None:
    path = tmp_path / "controls.npy"
    np.save(path, memorised.members.numpy())
    members = scan(from_array(memorised.members.numpy()))
    audit = Audit({"members": members, "controls": open_images(path)}, HALF, ("known-mask",))
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
    audit = Audit({"members": open_images(path)}, HALF, ("known-mask",))
    np.save(path, 1 - memorised.members.numpy())
    with pytest.raises(ValueError, match="every estimate is compared with all members, but 0 has changed"):
        mf.audit.run(audit, memorised.autoencoder, tmp_path / "run", progress=False)


class Talking(nn.Module):
    """Warns in each forward pass, and prints."""

    def forward(self, images: Tensor) -> Tensor:
        warnings.warn("as models do", UserWarning, stacklevel=1)
        print("as people do")
        return 0.5 * images


def test_without_progress_nothing_is_said_but_what_the_model_says(
    memorised: Memorised, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    audit = small_audit(memorised, methods=("known-mask",))
    with pytest.warns(UserWarning, match="as models do"):
        mf.audit.run(audit, Talking().eval(), tmp_path / "run", progress=False)
    captured = capsys.readouterr()
    assert set(captured.out.splitlines()) == {"as people do"}
    assert captured.err == ""
    part = next((tmp_path / "run" / RECORDS).glob("*.parquet"))
    part.write_bytes(part.read_bytes()[:-40])
    with pytest.warns(RuntimeWarning, match="what it held is done again"):
        mf.audit.run(audit, Talking().eval(), tmp_path / "run", progress=False)


@pytest.mark.parametrize(
    ("mask", "found"),
    [
        (torch.ones(1, 8, 8, dtype=torch.bool), r"torch.bool \(1, 8, 8\); try mask\.expand\(3, 8, 8\)"),
        (torch.ones(9, 8, dtype=torch.bool), r"torch.bool \(9, 8\)"),
        (torch.ones(3, 8, 8), r"torch.float32 \(3, 8, 8\); try mask\.bool\(\)"),
        (torch.ones(8, 8, dtype=torch.bool), r"torch.bool \(8, 8\); try mask\.expand\(3, 8, 8\)"),
        (np.ones((3, 8, 8), bool), r"ndarray; try torch\.from_numpy\(mask\)"),
        ("half", r"str; try degradation\.make_mask\(name, image_shape\)"),
        (None, "NoneType"),
    ],
)
def test_a_mask_of_another_kind_is_refused_before_work_starts(memorised: Memorised, mask: Any, found: str) -> None:
    with pytest.raises(ValueError, match=rf"the mask 'mine' must be a bool tensor of shape \(3, 8, 8\), not {found}$"):
        small_audit(memorised, masks={"mine": mask})


def test_what_is_wrong_with_the_means_is_said_before_work_starts(memorised: Memorised, tmp_path: Path) -> None:
    audit, out = small_audit(memorised), tmp_path / "run"
    with pytest.raises(ValueError, match="workers must be at least 1, not 0"):
        mf.audit.run(audit, memorised.autoencoder, out, workers=0)
    with pytest.raises(ValueError, match="save_every must be finite and at least 0"):
        mf.audit.run(audit, memorised.autoencoder, out, save_every=-1)
    with pytest.raises(ValueError, match="there is no run to continue"):
        mf.audit.run(audit, memorised.autoencoder, out, resume=True)
    with pytest.raises(FileNotFoundError, match=r"there is no model file absent\.safetensors"):
        mf.audit.run(audit, "absent.safetensors", out)
    assert not out.exists()


def test_a_model_may_be_named(memorised: Memorised, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ("import torch", "class Halving(torch.nn.Module):", "    def forward(self, x):", "        return 0.5 * x")
    (tmp_path / "halving_model.py").write_text("\n".join((*lines, "make = lambda: Halving().eval()")))
    monkeypatch.chdir(tmp_path)
    audit = small_audit(memorised, methods=("known-mask",))
    with pytest.warns(RuntimeWarning, match="does not reconstruct the members"):
        ran = mf.audit.run(audit, "halving_model:make", "run", parts="parts", progress=False)
    assert ran.description["model"] == "halving_model:make"
    assert ran.description["plan"]["parts"] == str(tmp_path / "parts")
    assert ran.missing == 0


def test_records_of_another_models_audit_are_not_taken(memorised: Memorised, tmp_path: Path) -> None:
    audit = small_audit(memorised, controls=0, methods=("known-mask",))
    halving = Halving().eval()
    run(audit, memorised.autoencoder, tmp_path / "theirs")
    run(audit, halving, tmp_path / "ours")
    ours, cells = contents(tmp_path / "ours"), audit.cells()
    for cell in cells:
        shutil.copy(cell_path(tmp_path / "theirs", cell), cell_path(tmp_path / "ours", cell))
    with pytest.raises(ValueError, match=r"members\.known-mask\.center\.parquet is of another audit"):
        _ = mf.audit.open(tmp_path / "ours").summary
    remarks = run(audit, halving, tmp_path / "ours")
    assert len(remarks) == len(cells)
    assert all("is of another audit" in remark and "done again" in remark for remark in remarks)
    shutil.rmtree(tmp_path / "ours" / RECORDS / ASIDE)
    assert contents(tmp_path / "ours") == ours


class Halving(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return 0.5 * images

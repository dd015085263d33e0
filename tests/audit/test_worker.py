from __future__ import annotations

import gc
import os
import signal
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import memrecon_fast as mf
from memrecon_fast import Status
from memrecon_fast.audit.analysis.sheet import leading
from memrecon_fast.audit.analysis.statistics import candidates, errors, extremes, something_erased
from memrecon_fast.audit.plan import ALL_IMAGES, Audit
from memrecon_fast.audit.recording import Job, Truth, records_of
from memrecon_fast.audit.store.parts import Parts, Row, unpack
from memrecon_fast.audit.store.pictures import THUMBNAIL_SIDE, to_picture
from memrecon_fast.audit.store.records import RECORDS, Cell, Record
from memrecon_fast.audit.worker import IMAGES_IN_SHARD, Saver, Shard, Workbench, shards_of
from memrecon_fast.engine.samples import Finished
from memrecon_fast.images.scan import Images, scan
from memrecon_fast.images.sources import Source, from_array
from tests.helpers.auditing import MASKS, NEVER, SHAPE, Interruption, folder_of, run, small_audit
from tests.helpers.memorised import Memorised

CELL = Cell("members", "center", "iterate")
MANY = 400


def many_images(count: int = MANY) -> Images:
    return scan(from_array(np.random.default_rng(0).integers(0, 256, (count, 3, 8, 8), np.uint8)))


@pytest.fixture(scope="module")
def many() -> Images:
    return many_images()


def make_audit(images: Images, keep_images: int = 0) -> Audit:
    masks = {name: mf.degradation.make_mask(name, SHAPE) for name in MASKS}
    return Audit({"members": images}, masks, ("iterate",), keep_images=keep_images, backend="torch", slots=16)


def work(
    audit: Audit,
    path: Path,
    *,
    cells: Sequence[Cell] = (CELL,),
    report: object = None,
    wanted: Mapping[Cell, frozenset[int]] | None = None,
    seconds: float = NEVER,
    saved: object = lambda: None,
) -> list[str]:
    """Work on all usable images of the cells; returns the messages on images that were skipped."""
    bench = Workbench(audit, audit.prepare(nn.Identity().eval()), Parts(str(path / RECORDS)), seconds)
    shards = shards_of({cell: audit.splits[cell.split].usable() for cell in cells})
    skipped: list[str] = []
    bench.work("iterate", shards, wanted, report or Interruption(), skipped.append, saved)  # type: ignore[arg-type]
    return skipped


def parts_in(path: Path, cell: Cell = CELL) -> list[int]:
    """The number of rows of each part file."""
    return [len(table) for table in Parts(str(path / RECORDS)).read(cell)]


def test_shards_are_of_one_cell_and_hold_every_image_once() -> None:
    other = Cell("controls", "center", "iterate")
    todo: dict[Cell, Sequence[int]] = {CELL: range(3, 2 * IMAGES_IN_SHARD + 8), other: [5, 1], Cell("a", "b", "c"): []}
    shards = shards_of(todo)
    assert [(shard.cell, len(shard.indices)) for shard in shards] == [
        (CELL, IMAGES_IN_SHARD),
        (CELL, IMAGES_IN_SHARD),
        (CELL, 5),
        (other, 2),
    ]
    assert [index for shard in shards for index in shard.indices] == [*todo[CELL], 5, 1]
    assert shards_of({CELL: np.array([1, 2])}) == [Shard(CELL, (1, 2))]
    assert type(shards_of({CELL: np.array([1])})[0].indices[0]) is int


@pytest.mark.parametrize("keep_images", [0, 10, ALL_IMAGES])
def test_the_pixels_that_wait_do_not_grow_with_the_images(many: Images, tmp_path: Path, keep_images: int) -> None:
    most = seen = 0

    def count(_: Record) -> None:
        nonlocal most, seen
        seen += 1
        if seen % 61 == 0 or seen % 128 in (0, 127):
            alive = sum(type(one) is Finished for one in gc.get_objects())
            most = max(most, alive)

    work(make_audit(many, keep_images=keep_images), tmp_path, report=count)
    assert seen == MANY
    assert 40 < most <= 140
    assert sum(parts_in(tmp_path)) == MANY
    if keep_images == ALL_IMAGES:  # what is kept can only be written
        assert max(parts_in(tmp_path)) <= 128
        assert len(parts_in(tmp_path)) == -(-MANY // 128)
    else:
        assert parts_in(tmp_path) == [MANY]


def test_pixels_are_dropped_of_images_that_no_gallery_would_show(many: Images, tmp_path: Path) -> None:
    work(make_audit(many, keep_images=7), tmp_path)
    (table,) = Parts(str(tmp_path / RECORDS)).read(CELL)
    table = table.sort_by("index")
    errors = table["mse"].to_numpy()
    kept = [at for at, image in enumerate(table["image"]) if image.is_valid]
    assert set(kept) == extremes(errors, 7)
    assert [at for at, mask in enumerate(table["estimated_mask"]) if mask.is_valid] == kept
    assert 12 <= sum(picture.is_valid for picture in table["picture"]) <= 24


def test_thumbnails_are_of_the_members_that_came_back_best(
    many: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("memrecon_fast.audit.analysis.sheet.MAX_SHOWN", 20)
    work(make_audit(many), tmp_path)
    (table,) = Parts(str(tmp_path / RECORDS)).read(CELL)
    table = table.sort_by("index")
    columns = {
        name: table[name].to_numpy().astype(float) for name in ("index", "mse", "score", "diverged", "erased_mse")
    }
    kept = {at: unpack(one.as_py()) for at, one in enumerate(table["thumbnail"]) if one.is_valid}
    assert {int(index) for index in leading(columns)} <= set(kept)
    assert len(kept) < MANY // 2
    for at, thumbnail in kept.items():
        np.testing.assert_array_equal(thumbnail[0], to_picture(many[at], THUMBNAIL_SIDE))
        assert max(thumbnail.shape[2:]) <= THUMBNAIL_SIDE


@pytest.mark.parametrize("keep_images", [0, 1, 5])
@pytest.mark.parametrize("some_are_wanted", [False, True])
@pytest.mark.parametrize("known", [False, True])
def test_the_pixels_kept_are_those_that_all_images_together_would_choose(
    keep_images: int, some_are_wanted: bool, known: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Done in any order, with equal errors, and such that are no number: the choice is made a few images at a time."""
    monkeypatch.setattr("memrecon_fast.audit.worker._MAX_WITH_PIXELS", 20)
    random = np.random.default_rng(keep_images)
    count = 150
    wanted = {CELL: frozenset(random.choice(count, 20, replace=False).tolist())} if some_are_wanted else None
    saver = Saver(Parts(str(tmp_path)), wanted, keep_images, NEVER, lambda: None)
    for index in random.permutation(count).tolist():
        original = torch.full((1, 2, 2), float(random.choice([0.0, 0.5])))  # of black ones nothing is erased
        mask = torch.tensor([[[True, True], [False, False]]])
        estimate = original + float(random.choice([0.0, 1e-4, 0.02, 0.02, 0.3, np.nan, np.inf]))
        status = Status.DIVERGED if not estimate.isfinite().all() else Status.CONVERGED
        score = float(random.choice([0.0, 1e-7, 1e-3, np.nan, np.inf]))
        job = Job(CELL, str(index), "0" * 64, original, Truth(original, mask) if known else None)
        finished = Finished(index, estimate, mask, 1, 1, status, 0.0, score=score, label=job)
        saver.add(finished, *records_of([finished]))
    saver.save()
    (table,) = Parts(str(tmp_path)).read(CELL)
    table = table.sort_by("index")
    columns = {name: table[name].to_numpy().astype(float) for name in ("mse", "score", "diverged", "erased_mse")}
    found, counted = errors(columns), np.flatnonzero(something_erased(columns))
    assert 0 < len(counted) < count
    assert table["index"].to_pylist() == list(range(count))
    assert {at for at, image in enumerate(table["image"]) if image.is_valid} == extremes(found, keep_images)
    shown = {at for at, picture in enumerate(table["picture"]) if picture.is_valid}
    assert shown == ({counted[at] for at in candidates(found[counted])} if wanted is None else wanted[CELL])


def test_pictures_are_kept_of_what_is_wanted(many: Images, tmp_path: Path) -> None:
    wanted = {CELL: frozenset({3, 200, 201, 399})}
    work(make_audit(many), tmp_path, wanted=wanted)
    (table,) = Parts(str(tmp_path / RECORDS)).read(CELL)
    shown = [
        index for index, picture in zip(table["index"].to_pylist(), table["picture"], strict=True) if picture.is_valid
    ]
    assert sorted(shown) == sorted(wanted[CELL])
    other = Cell("members", "random-50", "iterate")
    work(make_audit(many), tmp_path, cells=[other], wanted=wanted)
    (table,) = Parts(str(tmp_path / RECORDS)).read(other)
    assert table["picture"].null_count == MANY


def test_parts_are_written_as_time_goes_by(tmp_path: Path) -> None:
    audit = make_audit(many_images(20))
    saves = []
    work(audit, tmp_path / "a", seconds=0, saved=lambda: saves.append(len(parts_in(tmp_path / "a"))))
    assert parts_in(tmp_path / "a") == 20 * [1]
    assert saves == [*range(1, 21), 20]  # the last time there is nothing to be written
    work(audit, tmp_path / "b", seconds=NEVER)
    assert parts_in(tmp_path / "b") == [20]


def test_the_cells_of_a_part_are_kept_apart(tmp_path: Path) -> None:
    audit = make_audit(many_images(10))
    other = Cell("members", "random-50", "iterate")
    seen = Interruption()
    work(audit, tmp_path, cells=[CELL, other], report=seen)
    assert parts_in(tmp_path) == parts_in(tmp_path, other) == [10]
    assert {(record.mask, record.index) for record in seen.records} == {
        (mask, index) for mask in ("center", "random-50") for index in range(10)
    }


@pytest.mark.usefixtures("interruptible")
def test_an_interruption_while_a_part_is_written_waits_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = Parts.write
    began = 0

    def write_and_be_interrupted(parts: Parts, cell: Cell, rows: Sequence[Row]) -> None:
        nonlocal began
        began += 1
        if began == 3:
            os.kill(os.getpid(), signal.SIGINT)
        write(parts, cell, rows)

    monkeypatch.setattr(Parts, "write", write_and_be_interrupted)
    handler = signal.getsignal(signal.SIGINT)
    seen = Interruption()
    with pytest.raises(KeyboardInterrupt):
        work(make_audit(many_images(20)), tmp_path, seconds=0, report=seen)
    assert began == 3
    assert parts_in(tmp_path) == [1, 1, 1]
    assert len(seen.records) == 2
    assert signal.getsignal(signal.SIGINT) is handler
    assert not list(tmp_path.rglob("*.tmp"))


@pytest.mark.usefixtures("interruptible")
def test_an_interruption_between_two_parts_saves_what_is_done(tmp_path: Path) -> None:
    seen: list[Record] = []

    def report(record: Record) -> None:
        seen.append(record)
        if len(seen) == 5:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        work(make_audit(many_images(20)), tmp_path, report=report)
    assert parts_in(tmp_path) == [5]
    assert folder_of(tmp_path).done(CELL).tolist() == sorted(record.index for record in seen)


def test_what_cannot_be_saved_is_an_error_and_is_tried_again_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Parts.write
    tried = 0

    def write_after_two_failures(parts: Parts, cell: Cell, rows: Sequence[Row]) -> None:
        nonlocal tried
        tried += 1
        if tried == 2:
            raise OSError(28, "No space left on device")
        write(parts, cell, rows)

    monkeypatch.setattr(Parts, "write", write_after_two_failures)
    with pytest.raises(OSError, match="No space left on device"):
        work(make_audit(many_images(20)), tmp_path, seconds=0)
    assert parts_in(tmp_path) == [1, 1]  # there was room by then
    assert tried == 3


def test_work_may_be_done_in_another_thread(tmp_path: Path) -> None:
    """As in a worker of a cluster, where signals cannot be handled."""
    thread = threading.Thread(target=work, args=(make_audit(many_images(10)), tmp_path))
    thread.start()
    thread.join()
    assert parts_in(tmp_path) == [10]


FIRST_READS = 3
"""To find the shape, to check the image, and to compare the estimates with it."""


def test_an_image_that_cannot_be_read_any_more_is_skipped_by_name(tmp_path: Path) -> None:
    array = from_array(np.random.default_rng(0).integers(0, 256, (10, 3, 8, 8), np.uint8))
    changed: set[int] = set()
    reads = [0] * 10

    def read(index: int) -> np.ndarray:
        reads[index] += 1
        if index in (3, 5) and reads[index] > FIRST_READS:
            changed.add(index)
        if 3 in changed and index == 3:
            raise ValueError("it cannot be read: gone")
        return 255 - array.read(index) if index in changed else array.read(index)

    images = scan(Source(tuple(f"{letter}.png" for letter in "abcdefghij"), read))
    skipped = work(make_audit(images), tmp_path)
    assert skipped == [
        "d.png cannot be used any more: it cannot be read: gone",
        "f.png has changed since the audit began",
    ]
    assert folder_of(tmp_path).done(CELL).tolist() == [0, 1, 2, 4, 6, 7, 8, 9]


def test_nothing_is_compared_with_some_of_the_members_only(tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(0, 256, (10, 8, 8, 3), np.uint8)
    images = scan(from_array(array))
    array[4] = 0
    with pytest.raises(ValueError, match="compared with all members, but 4 has changed since the audit began"):
        work(make_audit(images), tmp_path)
    assert parts_in(tmp_path) == []


def test_a_bench_serves_one_method_after_the_other(memorised: Memorised, tmp_path: Path) -> None:
    audit = small_audit(memorised, controls=0)
    bench = Workbench(audit, audit.prepare(memorised.autoencoder), Parts(str(tmp_path / RECORDS)), NEVER)
    for method in audit.methods:
        cell = Cell("members", "center", method)
        execution = bench.work(method, [Shard(cell, (2, 5))], None, Interruption(), print)
        assert execution == "torch, eager, 8 slots"
        assert folder_of(tmp_path).done(cell).tolist() == [2, 5]


def test_what_is_kept_of_parts_holds_the_extremes_of_the_whole() -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        count, size = int(rng.integers(0, 9)), int(rng.integers(1, 60))
        errors = rng.choice([0.0, 0.5, np.inf, *rng.random(20)], size)  # with equal ones
        parts = rng.integers(0, 4, size)
        kept: set[int] = set()
        for part in range(4):
            indices = np.flatnonzero(parts == part)
            kept |= {int(indices[at]) for at in extremes(errors[indices], count)}
        whole = extremes(errors, count)
        assert whole <= kept
        assert len(whole) == min(2 * count, size)
        ascending = np.sort(errors)
        assert sorted(errors[sorted(whole)]) == sorted(
            ascending if 2 * count >= size else [*ascending[:count], *ascending[size - count :]]
        )


def test_records_do_not_wait_without_limit(
    memorised: Memorised, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a fast GPU thousands come in the seconds between two part files."""
    monkeypatch.setattr("memrecon_fast.audit.worker._MAX_WAITING", 5)
    audit = small_audit(memorised, controls=0, methods=("known-mask",))
    sizes: list[int] = []
    write = Parts.write

    def write_counted(parts: Parts, cell: Cell, rows: Sequence[Row]) -> None:
        sizes.append(len(rows))
        write(parts, cell, rows)

    monkeypatch.setattr(Parts, "write", write_counted)
    run(audit, memorised.autoencoder, tmp_path / "run")
    assert sum(sizes) == 32
    assert max(sizes) == 5

from __future__ import annotations

import dataclasses
import json
import platform
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor, nn

import memrecon_fast as mf
from memrecon_fast.audit.records import MOST_PSNR, SCHEMA, Cell, Record, read_records
from memrecon_fast.audit.run import Audit, make_run_folder, run_audit
from memrecon_fast.audit.sources import Images, from_array
from memrecon_fast.audit.statistics import rate_interval
from memrecon_fast.audit.summary import DESCRIBED, describe, summarise, write_description
from tests.memorised import Memorised

SHAPE = (3, 8, 8)
MASKS = ("center", "random-50")
SETTINGS = mf.Settings(gamma=0.5, max_outer_iterations=12)


def make_audit(memorised: Memorised, **changes: object) -> Audit:
    audit = Audit(
        splits={"members": from_array(memorised.members.numpy()), "controls": from_array(memorised.controls.numpy())},
        masks={name: mf.degradation.make_mask(name, SHAPE) for name in MASKS},
        settings=SETTINGS,
        backend="torch",
        slots=8,
    )
    return dataclasses.replace(audit, **changes)  # type: ignore[arg-type]


def run(audit: Audit, autoencoder: nn.Module, folder: Path) -> list[Record]:
    records: list[Record] = []
    solvers = audit.prepare(autoencoder)
    write_description(folder, describe(audit, solvers, "model", dict.fromkeys(audit.splits, "somewhere")))
    run_audit(audit, solvers, folder, records.append)
    return records


@pytest.fixture(scope="module")
def finished(memorised: Memorised, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    run(make_audit(memorised), memorised.autoencoder, folder)
    return folder


@pytest.mark.parametrize("noise_std", [0.0, 0.02])
@pytest.mark.parametrize("method", ["paper", "known-mask", "iterate"])
def test_records_say_what_recover_and_iterate_say(
    memorised: Memorised, tmp_path: Path, method: str, noise_std: float
) -> None:
    audit = make_audit(memorised, methods=(method,), noise_std=noise_std)
    run(audit, memorised.autoencoder, tmp_path)
    cells = read_records(tmp_path)
    assert set(cells) == set(audit.cells())
    for cell, columns in cells.items():
        images = getattr(memorised, cell.split)
        mask = audit.masks[cell.mask]
        degraded = mf.degradation.erase(images, mask, noise_std, SETTINGS.seed)
        if method == "iterate":
            expected = mf.iterate(memorised.autoencoder, degraded, 1000, 1e-12, "torch")
        else:
            settings = dataclasses.replace(SETTINGS, restore_known_pixels=noise_std == 0)
            known = mask if method == "known-mask" else None
            expected = mf.recover(memorised.autoencoder, degraded, known, settings, "torch")
        mse = mf.metrics.mse(expected.images, images).numpy()
        np.testing.assert_array_equal(columns["index"], np.arange(len(images)))
        np.testing.assert_array_equal(columns["mse"], mse)  # bit for bit: neighbours in the slots do not matter
        np.testing.assert_array_equal(columns["evaluations"], expected.evaluations.numpy())
        np.testing.assert_array_equal(columns["outer_iterations"], expected.outer_iterations.numpy())
        np.testing.assert_array_equal(columns["residual"], expected.residual.double().numpy())
        np.testing.assert_array_equal(columns["accurate"], mse < 1e-7)
        np.testing.assert_array_equal(columns["approximate"], mse < 5e-4)
        assert list(columns["status"]) == [mf.Status(int(status)).name for status in expected.status]
        clipped = mf.metrics.psnr(expected.images.clamp(0, 1), images).clamp(max=MOST_PSNR)
        np.testing.assert_allclose(columns["psnr"], clipped, rtol=1e-12)
        if method == "paper":
            wrong = (expected.masks != mask).flatten(1).double().mean(1)
            np.testing.assert_allclose(columns["wrong_mask_share"], wrong, rtol=1e-6)
        else:
            assert np.isnan(columns["wrong_mask_share"].astype(float)).all()


def test_the_summary_is_that_of_the_parquet_files(finished: Path) -> None:
    summary = summarise(finished)
    assert summary == json.loads((finished / "summary.json").read_text())
    table = pq.read_table(finished / "records").to_pylist()
    assert len(table) == 2 * len(MASKS) * 3 * 16
    keys = {(row["mask"], row["method"], row["split"]) for row in table}
    assert len(summary["rows"]) == len(keys) == 12
    for row in summary["rows"]:
        assert set(row) == {
            "mask", "method", "split", "images", "accurate_rate", "approximate_rate", "mean_psnr", "mean_evaluations",
            "diverged", "accurate_interval", "approximate_interval",
        }  # fmt: skip
        ours = [one for one in table if all(one[key] == row[key] for key in ("mask", "method", "split"))]
        assert row["images"] == len(ours) == 16
        assert row["accurate_rate"] == sum(one["mse"] < 1e-7 for one in ours) / 16
        assert row["approximate_rate"] == sum(one["mse"] < 5e-4 for one in ours) / 16
        assert row["mean_psnr"] == pytest.approx(sum(one["psnr"] for one in ours) / 16, rel=1e-12)
        assert row["mean_evaluations"] == pytest.approx(sum(one["evaluations"] for one in ours) / 16, rel=1e-12)
        assert row["diverged"] == 0
        assert row["accurate_interval"] == list(rate_interval(round(16 * row["accurate_rate"]), 16))
        low, high = row["approximate_interval"]
        assert 0 <= low <= row["approximate_rate"] <= high <= 1


def test_the_summary_compares_members_with_controls(finished: Path) -> None:
    table = pq.read_table(finished / "records").to_pylist()
    comparisons = summarise(finished)["comparisons"]
    assert len(comparisons) == len(MASKS) * 3
    for row in comparisons:
        ours = [one for one in table if (one["mask"], one["method"]) == (row["mask"], row["method"])]
        least = min(one["mse"] for one in ours if one["split"] == "controls")
        found = sum(one["mse"] < least for one in ours if one["split"] == "members")
        assert [at["false_positive_rate"] for at in row["at"]] == [0.0, 0.001]
        for at in row["at"]:  # 16 controls: a thousandth of them is none
            assert at["threshold"] == least
            assert at["true_positive_rate"] == found / 16
        if row["method"] == "paper":
            assert found > 8


def test_members_come_back_and_controls_do_not(finished: Path) -> None:
    rates = {(row["split"], row["mask"], row["method"]): row["approximate_rate"] for row in summarise(finished)["rows"]}
    for mask in MASKS:
        assert rates["members", mask, "paper"] > rates["members", mask, "iterate"]
        for method in ("paper", "known-mask", "iterate"):
            assert rates["controls", mask, method] == 0


def test_the_summary_says_what_was_run_and_where(finished: Path) -> None:
    summary = summarise(finished)
    assert mf.Settings.from_dict(summary["settings"]) == SETTINGS
    assert summary["images"] == {"members": 16, "controls": 16}
    assert summary["backend"] == "torch"
    assert summary["versions"]["torch"] == torch.__version__
    assert summary["versions"]["python"] == platform.python_version()
    assert summary["machine"]["threads"] == torch.get_num_threads()


class Exploding(nn.Module):
    """Finite for what the checks try; leaves the range of float32 after a few dozen iterations."""

    def forward(self, images: Tensor) -> Tensor:
        return 30 * images + 1


def test_a_diverged_estimate_counts_as_not_recovered_and_spoils_no_mean(memorised: Memorised, tmp_path: Path) -> None:
    audit = make_audit(memorised, methods=("iterate", "paper"))
    records = run(audit, Exploding().eval(), tmp_path)
    assert all(record.diverged for record in records)
    assert not any(record.accurate or record.approximate for record in records)
    summary = summarise(tmp_path)
    for row in summary["rows"]:
        assert row["diverged"] == row["images"] == 16
        assert row["accurate_rate"] == row["approximate_rate"] == 0
        assert 0 < row["mean_psnr"] < 33


def test_equal_images_have_the_greatest_psnr_there_is(memorised: Memorised, tmp_path: Path) -> None:
    everything = {"everything": torch.ones(SHAPE, dtype=torch.bool)}
    audit = make_audit(memorised, methods=("known-mask",), masks=everything)
    run(audit, memorised.autoencoder, tmp_path)
    columns = read_records(tmp_path)[Cell("members", "everything", "known-mask")]
    assert (columns["mse"] == 0).all()
    assert (columns["psnr"] == MOST_PSNR).all()


def test_what_was_done_before_an_interruption_is_kept(memorised: Memorised, tmp_path: Path) -> None:
    audit = make_audit(memorised)
    seen: list[Record] = []

    def interrupt(record: Record) -> None:
        seen.append(record)
        if len(seen) == 16 + 16 + 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_audit(audit, audit.prepare(memorised.autoencoder), tmp_path, interrupt)
    kept = read_records(tmp_path)
    assert {cell: len(columns["index"]) for cell, columns in kept.items()} == {
        Cell("members", "center", "paper"): 16,
        Cell("controls", "center", "paper"): 16,
        Cell("members", "center", "known-mask"): 5,
    }
    assert not list(tmp_path.rglob("*.tmp"))


def test_no_more_images_are_read_than_there_are_slots(memorised: Memorised, tmp_path: Path) -> None:
    members = from_array(memorised.members.numpy())
    underway = most = 0

    def read(index: int) -> np.ndarray:
        nonlocal underway, most
        underway += 1
        most = max(most, underway)
        return members.read(index % 16)

    def report(_: Record) -> None:
        nonlocal underway
        underway -= 1

    watched = Images(tuple(map(str, range(40))), members.image_shape, read)
    audit = make_audit(memorised, splits={"members": watched}, slots=16)
    run_audit(audit, audit.prepare(memorised.autoencoder), tmp_path, report)
    assert most == 16
    assert underway == 0


def test_masks_whose_names_are_awkward_have_files_of_their_own(memorised: Memorised, tmp_path: Path) -> None:
    mask = mf.degradation.make_mask("half", SHAPE)
    names = ("a b.png", "a_b.png", "../up.png", "half")
    run(
        make_audit(memorised, masks=dict.fromkeys(names, mask), methods=("known-mask",)),
        memorised.autoencoder,
        tmp_path,
    )
    assert {cell.mask for cell in read_records(tmp_path)} == set(names)
    assert len(list((tmp_path / "records").glob("*.parquet"))) == 2 * len(names)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gallery", "records", "run.json"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"methods": ()}, "at least one method"),
        ({"methods": ("magic",)}, "method must be one of"),
        ({"methods": ("paper", "paper")}, "named twice"),
        ({"masks": {}}, "at least one mask"),
        ({"noise_std": -1.0}, "noise_std"),
        ({"noise_std": float("nan")}, "noise_std"),
        ({"noise_std": 1e39}, "noise_std must be at most 1"),
        ({"slots": 0}, "slots"),
        ({"splits": {"controls": from_array(np.zeros((2, 3, 8, 8), np.uint8))}}, "needs members"),
        ({"splits": {"others": from_array(np.zeros((2, 3, 8, 8), np.uint8))}}, "split must be one of"),
    ],
)
def test_audits_that_make_no_sense_are_refused(memorised: Memorised, changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_audit(memorised, **changes)


def test_images_of_another_shape_are_refused(memorised: Memorised) -> None:
    splits = {
        "members": from_array(memorised.members.numpy()),
        "controls": from_array(np.zeros((2, 1, 8, 8), np.uint8)),
    }
    with pytest.raises(ValueError, match=r"controls are of shape \(1, 8, 8\), the members of \(3, 8, 8\)"):
        make_audit(memorised, splits=splits)
    model = mf.autoencoders.FullyConnected((3, 8, 9), 4, 2).eval()
    with pytest.raises(ValueError, match=r"model is for images of shape \(3, 8, 9\); these are \(3, 8, 8\)"):
        make_audit(memorised).prepare(model)


def test_a_folder_that_is_in_use_is_refused(tmp_path: Path) -> None:
    make_run_folder(tmp_path / "new" / "run")
    make_run_folder(tmp_path / "new" / "run")  # still empty
    (tmp_path / "new" / "run" / "something").touch()
    with pytest.raises(ValueError, match="run is not empty"):
        make_run_folder(tmp_path / "new" / "run")
    with pytest.raises(ValueError, match="something is a file"):
        make_run_folder(tmp_path / "new" / "run" / "something")


def test_what_is_no_run_is_refused(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not the folder of a run"):
        summarise(tmp_path)
    (tmp_path / "run.json").write_text((finished / "run.json").read_text())
    with pytest.raises(ValueError, match="holds no records"):
        summarise(tmp_path)
    (tmp_path / "records").mkdir()
    (tmp_path / "records" / "bad.parquet").write_bytes(b"no Parquet")
    with pytest.raises(ValueError, match=r"bad\.parquet cannot be read"):
        summarise(tmp_path)
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(ValueError, match=r"run\.json cannot be read"):
        summarise(tmp_path)


def test_what_describes_a_noisy_audit_is_what_runs(memorised: Memorised) -> None:
    audit = make_audit(memorised, noise_std=0.02)
    solvers = audit.prepare(memorised.autoencoder)
    description = describe(audit, solvers, "model", {})
    assert set(description) == set(DESCRIBED)
    assert description["settings"]["restore_known_pixels"] is False
    assert make_audit(memorised).settings.restore_known_pixels is True


def test_a_mask_may_have_the_longest_name_there_is(memorised: Memorised, tmp_path: Path) -> None:
    mask = mf.degradation.make_mask("half", SHAPE)
    names = ("記" * 80 + "一.png", "記" * 80 + "二.png")
    audit = make_audit(memorised, masks=dict.fromkeys(names, mask), methods=("known-mask",))
    run(audit, memorised.autoencoder, tmp_path)
    assert {cell.mask for cell in read_records(tmp_path)} == set(names)
    assert len(list((tmp_path / "gallery").iterdir())) == 4


@pytest.mark.parametrize("stated", [32, (8, 8), "3x8x8", (3.0, 9.0, 9.0)])
def test_an_attribute_that_means_something_else_is_passed_over(memorised: Memorised, stated: object) -> None:
    model = nn.Sequential(memorised.autoencoder).eval()
    model.image_shape = stated  # type: ignore[assignment]
    assert make_audit(memorised, methods=("iterate",)).prepare(model)


@pytest.mark.parametrize("content", ["{}", "[]", "3", '{"model": "m"}'])
def test_a_description_that_describes_nothing_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(ValueError, match=r"run\.json does not describe a run"):
        summarise(tmp_path)


def test_records_without_rows_or_columns_are_refused(finished: Path, tmp_path: Path) -> None:
    whole = pq.ParquetFile(next((finished / "records").iterdir())).read()
    (tmp_path / "records").mkdir()
    for table in (pa.Table.from_pylist([], SCHEMA), whole.drop_columns(["mse", "psnr"])):
        pq.write_table(table, tmp_path / "records" / "bad.parquet")
        with pytest.raises(ValueError, match=r"bad\.parquet holds no records"):
            read_records(tmp_path)

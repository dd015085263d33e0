from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

import memrecon_fast as mf
from memrecon_fast.audit.analysis.results import Results, read_results
from memrecon_fast.audit.analysis.statistics import rate_interval
from memrecon_fast.audit.report.summary import make_summary, summarise
from memrecon_fast.audit.report.verdicts import MAX_NAMED
from memrecon_fast.audit.store.records import RECORDS, Cell
from memrecon_fast.results import noise_floor
from tests.helpers.auditing import MASKS, SETTINGS, run, small_audit
from tests.helpers.made_run import GIVEN_OUT, make_run
from tests.helpers.memorised import Memorised

LOST, UNDONE = np.inf, np.nan
A, P, N = 1e-8, 1e-5, 1e-2  # accurate, approximate, not recovered


@pytest.fixture(scope="module")
def finished(memorised: Memorised, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("all") / "run"
    run(small_audit(memorised), memorised.autoencoder, path)
    return path


def read_csv(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def read_json(path: Path) -> Any:
    def refuse(constant: str) -> NoReturn:
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)


def records_of(path: Path) -> list[dict[str, Any]]:
    return [row for file in (path / RECORDS).rglob("*.parquet") for row in pq.ParquetFile(file).read().to_pylist()]


def counted(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Without the images of which nothing was erased: one of the controls is dark in the middle."""
    return [row for row in rows if row["erased_mse"] >= 5e-4]


def two_by_two(path: Path, **changes: Any) -> Results:
    """Two methods, two masks, five members and four controls, of which the last is nearly member 0."""
    errors = {
        Cell("members", "half", "paper"): [A, P, N, LOST, N],
        Cell("members", "stripes", "paper"): [A, N, N, LOST, N],
        Cell("members", "half", "iterate"): [N, P, N, LOST, P],
        Cell("members", "stripes", "iterate"): [P, N, N, LOST, N],
        Cell("controls", "half", "paper"): [N, LOST, 2e-2, A / 2],
        Cell("controls", "stripes", "paper"): [3e-3, N, 2e-2, A / 2],
        Cell("controls", "half", "iterate"): [N, LOST, 2e-2, A / 2],
        Cell("controls", "stripes", "iterate"): [N, N, 2e-2, A / 2],
    }
    return make_run(path, errors, near_duplicates={3: 0}, **changes)


def test_the_rows_are_those_of_the_parquet_files(finished: Path) -> None:
    summary = summarise(read_results(finished))
    assert summary == read_json(finished / "summary.json")
    table = records_of(finished)
    assert len(table) == 2 * len(MASKS) * 3 * 16
    keys = {(row["mask"], row["method"], row["split"]) for row in table}
    assert len(summary["rows"]) == len(keys) == 12
    for row in summary["rows"]:
        assert set(row) == {
            "mask", "method", "split", "images", "accurate_rate", "approximate_rate", "mean_psnr", "mean_evaluations",
            "diverged", "accurate_interval", "approximate_interval", "recognized_rate", "agreement", "nothing_erased",
            *GIVEN_OUT,
        }  # fmt: skip
        ours = [one for one in table if all(one[key] == row[key] for key in ("mask", "method", "split"))]
        ours, count = counted(ours), len(counted(ours))
        assert row["images"] == count == (15 if (row["split"], row["mask"]) == ("controls", "center") else 16)
        assert row["nothing_erased"] == 16 - count
        assert row["accurate_rate"] == sum(one["mse"] < 1e-7 for one in ours) / count
        assert row["approximate_rate"] == sum(one["mse"] < 5e-4 for one in ours) / count
        assert row["mean_psnr"] == pytest.approx(sum(one["psnr"] for one in ours) / count, rel=1e-12)
        assert row["mean_evaluations"] == pytest.approx(sum(one["evaluations"] for one in ours) / count, rel=1e-12)
        assert row["diverged"] == 0
        assert row["accurate_interval"] == list(rate_interval(round(count * row["accurate_rate"]), count))
        low, high = row["approximate_interval"]
        assert 0 <= low <= row["approximate_rate"] <= high <= 1


def test_the_csv_has_the_same_rows(finished: Path) -> None:
    rows = summarise(read_results(finished))["rows"]
    for row, line in zip(rows, read_csv(finished / "summary.csv"), strict=True):
        for name, value in row.items():
            if name.endswith("_interval"):
                assert [float(line[f"{name}_low"]), float(line[f"{name}_high"])] == value
            elif value is None:
                assert line[name] == ""
            else:
                assert line[name] == value if isinstance(value, str) else float(line[name]) == value


def test_members_are_told_from_controls_by_the_parquet_files(finished: Path) -> None:
    table = records_of(finished)
    summary = summarise(read_results(finished))
    assert len(summary["comparisons"]) == len(MASKS) * 3
    for row in summary["comparisons"]:
        ours = counted([one for one in table if (one["mask"], one["method"]) == (row["mask"], row["method"])])
        least = min(one["mse"] for one in ours if one["split"] == "controls")
        found = sum(one["mse"] < least for one in ours if one["split"] == "members")
        assert [at["false_positive_rate"] for at in row["at"]] == [0.0, 0.001, 0.01]
        assert [at["told"] for at in row["at"]] == [True, False, False]
        for at in row["at"]:  # 16 controls: a hundredth of them is none
            assert (at["threshold"], at["true_positive_rate"]) == (least, found / 16)
    for row in summary["comparisons_over_masks"]:
        best: dict[str, dict[int, float]] = {"members": {}, "controls": {}}
        for one in counted([one for one in table if one["method"] == row["method"]]):
            of_split = best[one["split"]]
            of_split[one["index"]] = min(one["mse"], of_split.get(one["index"], np.inf))
        least = min(best["controls"].values())
        assert row["at"][0]["threshold"] == least
        assert row["at"][0]["true_positive_rate"] == sum(mse < least for mse in best["members"].values()) / 16


def test_members_come_back_and_controls_do_not(finished: Path) -> None:
    rows = summarise(read_results(finished))["rows"]
    rates = {(row["split"], row["mask"], row["method"]): row["approximate_rate"] for row in rows}
    for mask in MASKS:
        assert rates["members", mask, "paper"] > rates["members", mask, "iterate"]
        for method in ("paper", "known-mask", "iterate"):
            assert rates["controls", mask, method] == 0


def test_verdicts_are_those_of_the_parquet_files(finished: Path) -> None:
    table = records_of(finished)
    summary = summarise(read_results(finished))
    lines = read_csv(finished / "verdicts.csv")
    images = pq.ParquetFile(finished / "images.parquet").read().to_pylist()
    assert len(lines) == len(images) == 32
    for line, image in zip(lines, images, strict=True):
        assert (line["split"], int(line["index"])) == (image["split"], image["index"])
        assert (line["name"], line["sha256"]) == (image["name"], image["sha256"])
        ours = [one for one in table if (one["split"], one["index"]) == (image["split"], image["index"])]
        left_out = len({one["mask"] for one in ours}) - len({one["mask"] for one in counted(ours)})
        ours = counted(ours)
        back = {verdict: {one["method"] for one in ours if one[verdict]} for verdict in ("accurate", "approximate")}
        expected = "accurate" if back["accurate"] else "approximate" if back["approximate"] else "not recovered"
        assert line["verdict"] == expected
        assert float(line["best_psnr"]) == pytest.approx(max(one["psnr"] for one in ours), abs=1e-4)
        assert int(line["nothing_erased"]) == left_out
        for verdict, methods in back.items():
            assert line[f"only_{verdict}"] == (next(iter(methods)) if len(methods) == 1 else "")
        for method in ("paper", "known-mask", "iterate"):
            by_method = [one for one in ours if one["method"] == method]
            assert int(line[f"{method}_tried"]) == len(by_method) == len(MASKS) - left_out
            for what in ("accurate", "approximate", "diverged"):
                assert int(line[f"{method}_{what}"]) == sum(one[what] for one in by_method)
    for split, counts in summary["verdicts"].items():
        verdicts = [line["verdict"] for line in lines if line["split"] == split]
        assert counts == {verdict: verdicts.count(verdict) for verdict in set(verdicts)}


def test_the_summary_says_what_was_run(finished: Path) -> None:
    summary = summarise(read_results(finished))
    assert mf.Settings.from_dict(summary["settings"]) == SETTINGS
    assert summary["images"] == {"members": 16, "controls": 16}
    assert summary["plan"] == json.loads((finished / "audit.json").read_text())["plan"]
    assert summary["headline"] == "paper"
    for row in summary["iterations"]:
        ours = counted([one for one in records_of(finished) if one["method"] == row["method"]])
        assert row["recoveries"] == len(ours) == 63
        assert row["median"] == np.median([one["outer_iterations"] for one in ours])
        assert row["longest"] == max(one["outer_iterations"] for one in ours)
        for status in mf.Status:
            assert row[status.name.lower()] == sum(one["status"] == status.name for one in ours)


def test_the_seconds_of_all_sessions_are_added(tmp_path: Path) -> None:
    results = two_by_two(tmp_path, sessions=3)
    results.description["sessions"][1]["seconds"] = None  # it was killed
    assert summarise(results)["seconds"] == 25.0


def test_near_duplicates_are_left_out_of_comparisons_and_stay_in_rows(tmp_path: Path) -> None:
    summary = summarise(two_by_two(tmp_path))
    assert summary["near_duplicates"] == {
        "count": 1,
        "approximate": 1,
        "first": [{"control": "controls-3.png", "member": "members-0.png"}],
    }
    rows = {(row["split"], row["mask"], row["method"]): row for row in summary["rows"]}
    assert rows["controls", "half", "paper"]["images"] == 4
    assert rows["controls", "half", "paper"]["accurate_rate"] == 1 / 4
    by_mask = {(row["mask"], row["method"]): row for row in summary["comparisons"]}
    half = by_mask["half", "paper"]
    assert (half["members"], half["controls"]) == (5, 3)
    assert half["at"][0]["threshold"] == N  # with the near-duplicate it would be A / 2, and no member below
    assert half["at"][0]["true_positive_rate"] == 2 / 5
    (paper, iterate) = summary["comparisons_over_masks"]
    assert (paper["method"], paper["at"][0]["threshold"]) == ("paper", 3e-3)
    assert paper["at"][0]["true_positive_rate"] == 2 / 5
    assert (iterate["method"], iterate["at"][0]["true_positive_rate"]) == ("iterate", 3 / 5)


def test_images_count_once_over_masks(tmp_path: Path) -> None:
    rows = {(row["split"], row["method"]): row for row in summarise(two_by_two(tmp_path))["rows_over_masks"]}
    paper = rows["members", "paper"]
    assert (paper["images"], paper["accurate"], paper["approximate"]) == (5, 1, 2)
    assert paper["approximate_rate"] == 2 / 5
    assert paper["approximate_interval"] == list(rate_interval(2, 5))
    assert rows["members", "iterate"]["approximate"] == 3
    assert rows["controls", "iterate"]["approximate"] == 1


def test_images_that_one_method_alone_recovers(tmp_path: Path) -> None:
    alone = {(row["verdict"], row["method"]): row for row in summarise(two_by_two(tmp_path))["alone"]}
    assert alone["accurate", "paper"]["first"] == ["members-0.png"]
    assert alone["approximate", "paper"]["first"] == []  # member 0 came back by both
    assert alone["approximate", "iterate"]["first"] == ["members-4.png"]
    assert [row["count"] for row in alone.values()] == [1, 0, 0, 1]
    lines = read_csv(tmp_path / "verdicts.csv")
    assert [line["only_accurate"] for line in lines[:5]] == ["paper", "", "", "", ""]
    assert [line["only_approximate"] for line in lines[:5]] == ["", "", "", "", "iterate"]


def test_a_method_that_has_not_got_so_far_is_not_worse(tmp_path: Path) -> None:
    errors = {
        Cell("members", "half", "paper"): [A, A, N],
        Cell("members", "stripes", "paper"): [A, N, N],
        Cell("members", "half", "iterate"): [N, UNDONE, N],
        Cell("members", "stripes", "iterate"): [UNDONE, UNDONE, UNDONE],
    }
    summary = summarise(make_run(tmp_path, errors, unfinished=[Cell("members", "half", "iterate")]))
    assert summary["missing"] == 4
    alone = {(row["verdict"], row["method"]): row["first"] for row in summary["alone"]}
    assert alone["approximate", "paper"] == ["members-0.png"]  # of member 1 nobody knows
    assert [row["images"] for row in summary["rows_over_masks"]] == [3, 2]


def test_only_images_that_were_tried_under_all_masks_are_compared_over_them(tmp_path: Path) -> None:
    errors = {
        Cell("members", "half", "paper"): [N, A, A],
        Cell("members", "stripes", "paper"): [A, N, UNDONE],
        Cell("controls", "half", "paper"): [N, A / 2],
        Cell("controls", "stripes", "paper"): [1e-3, UNDONE],
    }
    unfinished = [cell for cell in errors if cell.mask == "stripes"]
    (row,) = summarise(make_run(tmp_path, errors, unfinished=unfinished))["comparisons_over_masks"]
    assert (row["members"], row["controls"]) == (2, 1)
    assert (row["at"][0]["threshold"], row["at"][0]["true_positive_rate"]) == (1e-3, 1.0)


def test_every_verdict_there_is(tmp_path: Path) -> None:
    errors = {
        Cell("members", "half", "paper"): [N, N, LOST, LOST, UNDONE, UNDONE],
        Cell("members", "half", "iterate"): [A, P, N, UNDONE, UNDONE, UNDONE],
    }
    results = make_run(tmp_path, errors, problems={"members": {5: "it is no image"}}, unfinished=list(errors))
    summary = summarise(results)
    verdicts = ["accurate", "approximate", "not recovered", "diverged", "not done", "unusable"]
    lines = read_csv(tmp_path / "verdicts.csv")
    assert [line["verdict"] for line in lines] == verdicts
    assert summary["verdicts"] == {"members": dict.fromkeys(verdicts, 1)}
    assert [line["best_psnr"] for line in lines] == ["80.0", "50.0", "20.0", "5.0", "", ""]
    assert [line["paper_tried"] for line in lines] == ["1", "1", "1", "1", "0", "0"]
    assert lines[5]["problem"] == "it is no image"
    assert summary["missing"] == 2 * 5 - 7
    (paper, iterate) = summary["rows_over_masks"]
    assert (paper["images"], paper["approximate_rate"]) == (4, 0.0)
    assert (iterate["images"], iterate["approximate_rate"], iterate["accurate_rate"]) == (3, 2 / 3, 1 / 3)
    assert summary["images"] == {"members": 5}
    assert summary["unusable"]["members"] == {
        "count": 1,
        "first": [{"name": "members-5.png", "problem": "it is no image"}],
    }


def test_lists_are_short(tmp_path: Path) -> None:
    count = 3 * MAX_NAMED
    bad = dict.fromkeys(range(count), "it is no image")
    errors = {
        Cell("members", "half", "paper"): [UNDONE] * count + [A] * count,
        Cell("members", "half", "iterate"): [UNDONE] * count + [N] * count,
        Cell("controls", "half", "paper"): [N] * count,
        Cell("controls", "half", "iterate"): [N] * count,
    }
    near = dict.fromkeys(range(count), count)
    summary = summarise(make_run(tmp_path, errors, problems={"members": bad}, near_duplicates=near))
    (alone, *_) = summary["alone"]
    for found in (summary["unusable"]["members"], summary["near_duplicates"], alone):
        assert (found["count"], len(found["first"])) == (count, MAX_NAMED)
    assert summary["comparisons"] == summary["comparisons_over_masks"] == []  # no control is left


def recognition_of(path: Path, **changes: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Of `half` and `paper`, the row of the members and that of the recognition. Scores are 0.3 of the errors."""
    cells = {
        Cell("members", "half", "paper"): [A, P, 2e-4, 4e-4, 1e-3, N, LOST, UNDONE],
        Cell("controls", "half", "paper"): [5e-4, N, N, LOST, A],
        Cell("members", "half", "iterate"): [A] * 8,
    }
    unfinished = [Cell("members", "half", "paper")]
    summary = summarise(make_run(path, cells, unfinished=unfinished, near_duplicates={4: 0}, **changes))
    (recognition,) = summary["recognition"]  # nothing can be said of "iterate"
    return next(row for row in summary["rows"] if row["method"] == "paper"), recognition


def test_what_is_recognized_without_the_originals(tmp_path: Path) -> None:
    row, recognition = recognition_of(tmp_path)
    bound = recognition.pop("false_positive_bound")
    assert bound == pytest.approx(1 - 0.05 ** (1 / 4))
    lower = 4 * 4 + 3 + (1 + 2 / 2) + 1 / 2  # by member, of pairs with the four controls; equal ones count half
    assert recognition.pop("auc") == lower / 28
    assert recognition == {
        "mask": "half",
        "method": "paper",
        "threshold": pytest.approx(7.5e-5),  # half of the lowest control, but for the near-duplicate
        "limit": 1e-4,
        "controls": 4,
        "controls_below_limit": 0,
        "lowest_control": pytest.approx(1.5e-4),
        "lowered_by": "controls-0.png",
    }
    assert row["approximate_rate"] == 4 / 7
    assert row["recognized_rate"] == 3 / 7
    assert row["agreement"] == 6 / 7
    lines = read_csv(tmp_path / "verdicts.csv")
    assert [line["paper_recognized"] for line in lines[:8]] == ["1", "1", "1", "0", "0", "0", "0", "0"]
    assert [line["best_score"] for line in lines[:2]] == ["3e-09", "3e-06"]
    assert [line["best_score"] for line in lines[6:8]] == ["", ""]  # it diverged, it was not done
    assert lines[12]["paper_recognized"] == "1"  # the near-duplicate
    assert "iterate_recognized" not in lines[0]
    (line,) = [line for line in read_csv(tmp_path / "summary.csv") if line["method"] == "iterate"]
    assert line["recognized_rate"] == line["agreement"] == ""


def test_what_noise_adds_to_every_score_is_allowed_for(tmp_path: Path) -> None:
    """All entries of the made masks are kept; 0.3 of the lowest control's error is 1.5e-4."""
    floor = noise_floor(0.005, 192, 192)
    _, recognition = recognition_of(tmp_path, noise_std=0.005)
    assert recognition["limit"] == floor + 1e-4
    assert recognition["threshold"] == pytest.approx((1.5e-4 + floor) / 2)


def test_without_controls_nothing_is_said_of_false_positives(tmp_path: Path) -> None:
    (recognition,) = summarise(make_run(tmp_path, {Cell("members", "half", "paper"): [A, N]}))["recognition"]
    assert (recognition["threshold"], recognition["controls"]) == (1e-4, 0)
    for name in ("false_positive_bound", "auc", "lowest_control", "lowered_by"):
        assert recognition[name] is None


def test_recognition_is_that_of_the_parquet_files(memorised: Memorised, tmp_path: Path) -> None:
    audit = small_audit(memorised, methods=("accelerated", "known-mask"), noise_std=0.01)
    run(audit, memorised.autoencoder, tmp_path)
    table = records_of(tmp_path)
    summary = summarise(read_results(tmp_path))
    assert summary["headline"] == "accelerated"
    thresholds = {(row["mask"], row["method"]): row["threshold"] for row in summary["recognition"]}
    kept = {name: int(mask.sum()) for name, mask in audit.masks.items()}
    for row in summary["rows"]:
        ours = [one for one in table if all(one[key] == row[key] for key in ("mask", "method", "split"))]
        noisy = 192 if row["method"] == "accelerated" else kept[row["mask"]]
        threshold = thresholds[row["mask"], row["method"]]
        assert threshold == noise_floor(0.01, noisy, 192) + 1e-4
        recognized = [one["score"] < threshold for one in ours]
        assert row["recognized_rate"] == sum(recognized) / 16 == (row["split"] == "members")
        assert row["agreement"] == 1.0


def degraded_run(path: Path, **changes: Any) -> Results:
    errors = {
        Cell("members", "given", "accelerated"): [A, P, 1e-3, LOST, UNDONE],
        Cell("controls", "given", "accelerated"): [N, 5e-4, N],
        Cell("members", "given", "paper"): [P, 1e-3, 1e-3, LOST, UNDONE],
        Cell("controls", "given", "paper"): [N, N, N],
    }
    return make_run(path, errors, unfinished=list(errors), degraded=True, **changes)


def test_of_degraded_images_nothing_is_said_of_errors(tmp_path: Path) -> None:
    summary = summarise(degraded_run(tmp_path))
    assert read_json(tmp_path / "summary.json") == summary
    for absent in ("comparisons", "comparisons_over_masks", "near_duplicates"):
        assert absent not in summary
    row = next(row for row in summary["rows"] if (row["split"], row["method"]) == ("members", "accelerated"))
    low, high = rate_interval(2, 4)
    assert row == {
        "split": "members",
        "mask": "given",
        "method": "accelerated",
        "images": 4,
        "recognized_rate": 0.5,
        "recognized_interval": [low, high],
        "mean_evaluations": 39 * 2.5,
        "diverged": 1,
        "nothing_erased": 0,
    }
    assert [row["threshold"] for row in summary["recognition"]] == [pytest.approx(7.5e-5), 1e-4]
    assert summary["verdicts"] == {
        "members": {"recognized": 2, "not recognized": 1, "diverged": 1, "not done": 1},
        "controls": {"not recognized": 3},
    }
    assert [row["recognized"] for row in summary["rows_over_masks"]] == [2, 1, 0, 0]
    assert [(row["method"], row["first"]) for row in summary["alone"]] == [
        ("accelerated", ["members-1.png"]),
        ("paper", []),
    ]
    lines = read_csv(tmp_path / "verdicts.csv")
    assert list(lines[0]) == [
        "split", "index", "name", "sha256", "problem", "near_duplicate_of", "verdict", "nothing_erased", "best_score",
        "only_recognized", "accelerated_tried", "accelerated_recognized", "accelerated_diverged", "paper_tried",
        "paper_recognized", "paper_diverged",
    ]  # fmt: skip
    assert [line["verdict"] for line in lines[:5]] == [
        "recognized", "recognized", "not recognized", "diverged", "not done",
    ]  # fmt: skip
    assert [line["best_score"] for line in lines[:5]] == ["3e-09", "3e-06", "0.0003", "", ""]
    assert [line["only_recognized"] for line in lines[:3]] == ["", "accelerated", ""]
    assert len(read_csv(tmp_path / "summary.csv")) == 4


def test_one_image_that_diverged_everywhere(tmp_path: Path) -> None:
    results = make_run(tmp_path, {Cell("members", "half", "paper"): [LOST]})
    summary = summarise(results)
    assert read_json(tmp_path / "summary.json") == summary
    (row,) = summary["rows"]
    assert (row["images"], row["diverged"], row["approximate_rate"]) == (1, 1, 0.0)
    assert summary["comparisons"] == summary["alone"] == []
    assert summary["verdicts"] == {"members": {"diverged": 1}}


def test_members_and_controls_that_all_diverged_are_not_told_apart(tmp_path: Path) -> None:
    errors = {Cell(split, "half", "paper"): [LOST, LOST] for split in ("members", "controls")}
    (row,) = summarise(make_run(tmp_path, errors))["comparisons"]
    assert [at["true_positive_rate"] for at in row["at"]] == [0.0, 0.0, 0.0]
    read_json(tmp_path / "summary.json")


def test_no_name_becomes_a_formula(tmp_path: Path) -> None:
    evil = ["=cmd|' /C calc'!A0", "+1", "-1.png", "@SUM(A1)", "\t=1", 'a";=1+1\n"', "fine = +.png"]
    errors = {Cell("members", "=half", "paper"): [UNDONE] + [N] * (len(evil) - 1)}
    results = make_run(tmp_path, errors, names={"members": evil}, problems={"members": {0: "=1"}})
    summarise(results)
    lines = read_csv(tmp_path / "verdicts.csv")
    assert [line["name"] for line in lines] == [f"'{name}" for name in evil[:5]] + evil[5:]
    assert lines[0]["problem"] == "'=1"
    assert read_csv(tmp_path / "summary.csv")[0]["mask"] == "'=half"
    text = (tmp_path / "verdicts.csv").read_text(encoding="utf-8")
    assert '"a"";=1+1\n"""' in text  # quoted as a whole: no spreadsheet divides it


def test_a_summary_is_made_without_writing_anything(finished: Path) -> None:
    results = read_results(finished)
    summarise(results)
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*")}
    assert json.loads(json.dumps(make_summary(results))) == read_json(finished / "summary.json")
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("*")} == before


def test_what_is_no_run_is_refused(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not the folder of a run"):
        read_results(tmp_path)
    for name in ("audit.json", "images.parquet"):
        (tmp_path / name).write_bytes((finished / name).read_bytes())
    with pytest.raises(ValueError, match="holds no records"):
        read_results(tmp_path)
    (tmp_path / RECORDS).mkdir()
    (tmp_path / RECORDS / "members.paper.center.parquet").write_bytes(b"no Parquet")
    with pytest.raises(ValueError, match=r"paper\.center\.parquet cannot be read"):
        read_results(tmp_path)
    (tmp_path / "audit.json").write_text("{")
    with pytest.raises(ValueError, match=r"audit\.json cannot be read"):
        read_results(tmp_path)


def test_models_that_explode_spoil_no_mean(memorised: Memorised, tmp_path: Path) -> None:
    class Exploding(torch.nn.Module):
        """Finite for what the checks try; leaves the range of float32 after a few dozen iterations."""

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return 30 * images + 1

    run(small_audit(memorised, methods=("iterate", "paper")), Exploding().eval(), tmp_path)
    for row in summarise(read_results(tmp_path))["rows"]:
        assert row["diverged"] == row["images"] == 16 - row["nothing_erased"]
        assert row["accurate_rate"] == row["approximate_rate"] == 0
        assert 0 < row["mean_psnr"] < 33

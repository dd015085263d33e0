"""The tables of a run for a paper: rates with 95 % intervals, members and controls. All from its summary alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from memrecon_fast.audit.analysis.reconstruction_error import in_words, warning_of
from memrecon_fast.audit.analysis.results import VERDICTS
from memrecon_fast.audit.analysis.unfinished import unfinished
from memrecon_fast.audit.exporting.files import Sheet
from memrecon_fast.audit.report.remarks import given_out_of, remarks_of
from memrecon_fast.audit.store.manifest import ERRORS
from memrecon_fast.common.tables import Table
from memrecon_fast.common.text import escaped
from memrecon_fast.metrics import THRESHOLD_NAMES

SPLITS = ("members", "controls")
INTERVALS = "95 % intervals (Wilson) in parentheses"


def tables_of(summary: Mapping[str, Any]) -> dict[str, Sheet]:
    """The tables by file name: "rates" by mask and method, "rates-over-masks", and "members-against-controls" where
    there are controls and originals. summary: of `make_summary`."""
    sheets = {"rates": _rates(summary), "rates-over-masks": _over_masks(summary)}
    if any(row["at"] for row in summary.get("comparisons_over_masks", ())):
        sheets["members-against-controls"] = _against_controls(summary)
    return sheets


def verdicts_of(summary: Mapping[str, Any]) -> tuple[str, ...]:
    """The verdicts of the run, see `Results.verdicts`, the strictest first."""
    return ("recognized",) if summary["degraded"] else VERDICTS


def splits_of(summary: Mapping[str, Any]) -> list[str]:
    """Its splits."""
    return [split for split in SPLITS if split in summary["images"]]


def columns_of(splits: Iterable[str], verdicts: Sequence[str]) -> list[tuple[str, str]]:
    """Split and verdict of each column of rates: all verdicts on members, the loosest on controls."""
    return [(split, verdict) for split in splits for verdict in (verdicts if split == "members" else verdicts[-1:])]


def percent(rate: float | None, interval: Sequence[float] | None) -> str:
    """ "96.7 (83.3–99.4)"; "–" where there is none."""
    if rate is None or interval is None:
        return "–"
    low, high = interval
    return f"{100 * rate:.1f} ({100 * low:.1f}–{100 * high:.1f})"


def conditions(summary: Mapping[str, Any]) -> str:
    """What a caption must say where the run is in doubt or unfinished; "" otherwise."""
    words = []
    if summary["doubts"]:
        words.append(f"These results are in doubt: {'; '.join(map(escaped, summary['doubts']))}.")
    words += filter(None, [unfinished(summary)])
    errors = summary.get(ERRORS)
    if errors and (warning := warning_of(errors)):
        words.append(warning)
    return " ".join(words)


def definition(verdicts: Sequence[str]) -> str:
    """What the verdicts mean, in a caption."""
    if verdicts == ("recognized",):
        return "Recognized: a score below the threshold, the originals being unknown."
    return " ".join(f"{verdict.capitalize()}: MSE < {THRESHOLD_NAMES[verdict]}." for verdict in verdicts)


def _percents(row: Mapping[str, Any], split: str, verdicts: Sequence[str]) -> list[str]:
    columns = columns_of([split], verdicts)
    return [percent(row.get(f"{verdict}_rate"), row.get(f"{verdict}_interval")) for _, verdict in columns]


def _about(summary: Mapping[str, Any]) -> str:
    images = " and ".join(f"{count} {split}" for split, count in summary["images"].items())
    return f"{images} of {escaped(summary['model'].rpartition('/')[2])}"


def _notes(summary: Mapping[str, Any]) -> list[str]:
    errors = summary.get(ERRORS)
    said = [in_words(errors)] if errors else []
    return list(map(escaped, [*said, *given_out_of(summary), *remarks_of(summary)]))


def _caption(summary: Mapping[str, Any], *sentences: str) -> str:
    return " ".join(filter(None, (*sentences, conditions(summary))))


def _rates(summary: Mapping[str, Any]) -> Sheet:
    verdicts, splits = verdicts_of(summary), splits_of(summary)
    rows = {(row["mask"], row["method"], row["split"]): row for row in summary["rows"]}
    counts = {split: {row["images"] for key, row in rows.items() if key[2] == split} for split in splits}
    vary = {split for split, found in counts.items() if found - {summary["images"][split]}}
    header = ["mask", "method"]
    for split in splits:
        header += [f"{split}, number"] if split in vary else []
        header += [f"{split}, {verdict}" for _, verdict in columns_of([split], verdicts)]
    effort = [*(["PSNR"] if "approximate" in verdicts else []), "evals"]
    lines: list[list[str | float | None]] = []
    for mask in summary["masks"]:
        for number, method in enumerate(summary["methods"]):
            line: list[str | float | None] = ["" if number else escaped(mask), method]
            for split in splits:
                row = rows.get((mask, method, split), {})
                line += [row.get("images")] if split in vary else []
                line += _percents(row, split, verdicts)
            row = rows.get((mask, method, "members"), {})
            line += [_to(row.get("mean_psnr"), 1)] if "approximate" in verdicts else []
            lines.append([*line, _to(row.get("mean_evaluations"), 0)])
    what = f"Recovered, % of {_about(summary)}, by mask and method; {INTERVALS}."
    means = f"{'PSNR (dB) and evaluations' if len(effort) > 1 else 'Evaluations'}: means over the members."
    caption = _caption(summary, what, definition(verdicts), means)
    return Sheet(Table(caption, [*header, *effort], lines, _notes(summary), names=2), _numbers(summary, rows, verdicts))


def _numbers(
    summary: Mapping[str, Any], rows: Mapping[tuple[str, str, str], Mapping[str, Any]], verdicts: Sequence[str]
) -> list[dict[str, Any]]:
    numbers = []
    psnr = ["mean_psnr"] if "approximate" in verdicts else []
    for mask in summary["masks"]:
        for method in summary["methods"]:
            for split in splits_of(summary):
                row = rows.get((mask, method, split), {})
                numbers.append(
                    {"mask": mask, "method": method, "split": split, "images": row.get("images", 0)}
                    | rates_for_machines(row, verdicts)
                    | {name: row.get(name) for name in (*psnr, "mean_evaluations", "diverged", "nothing_erased")}
                )
    return numbers


def rates_for_machines(row: Mapping[str, Any], verdicts: Sequence[str]) -> dict[str, float | None]:
    """Each verdict's rate and the ends of its interval, as columns."""
    found: dict[str, float | None] = {}
    for verdict in verdicts:
        low, high = row.get(f"{verdict}_interval") or (None, None)
        found |= {verdict: row.get(f"{verdict}_rate"), f"{verdict}_low": low, f"{verdict}_high": high}
    return found


def _over_masks(summary: Mapping[str, Any]) -> Sheet:
    verdicts, splits = verdicts_of(summary), splits_of(summary)
    rows = {(row["method"], row["split"]): row for row in summary["rows_over_masks"]}
    lines: list[list[str | float | None]] = []
    numbers = []
    for method in summary["methods"]:
        line: list[str | float | None] = [method]
        for split in splits:
            row = rows.get((method, split), {})
            line += [row.get("images")]
            line += _percents(row, split, verdicts)
            numbers.append(
                {"method": method, "split": split, "images": row.get("images", 0)} | rates_for_machines(row, verdicts)
            )
        lines.append(line)
    header = ["method"]
    for split in splits:
        header += [f"{split}, number", *(f"{split}, {verdict}" for _, verdict in columns_of([split], verdicts))]
    masks = "the mask" if len(summary["masks"]) == 1 else f"at least one of {len(summary['masks'])} masks"
    what = f"Recovered under {masks}, % of {_about(summary)}; {INTERVALS}."
    return Sheet(Table(_caption(summary, what, definition(verdicts)), header, lines, _notes(summary)), numbers)


def _against_controls(summary: Mapping[str, Any]) -> Sheet:
    found = [{"mask": None, **row} for row in summary["comparisons_over_masks"]]
    if len(summary["masks"]) > 1:
        found += sorted(summary["comparisons"], key=lambda row: summary["masks"].index(row["mask"]))
    lines: list[list[str | float | None]] = []
    numbers = []
    most = max(row["controls"] for row in found)
    rates = [rate for one in found[0]["at"] if (rate := one["false_positive_rate"]) == 0 or rate * most >= 1]
    for row in found:
        mask = "all" if row["mask"] is None else escaped(row["mask"])
        line: list[str | float | None] = [mask, row["method"], row["members"], row["controls"]]
        for one in row["at"]:
            if (rate := one["false_positive_rate"]) not in rates:
                continue
            told = rate == 0 or rate * row["controls"] >= 1
            line.append(percent(one["true_positive_rate"], one["interval"]) if told else "–")
            low, high = one["interval"] if told else (None, None)
            numbers.append(
                {"mask": "" if row["mask"] is None else row["mask"], "method": row["method"], "members": row["members"],
                 "controls": row["controls"], "false_positives": rate,
                 "true_positives": one["true_positive_rate"] if told else None, "low": low, "high": high}
            )  # fmt: skip
        lines.append(line)
    header = ["mask", "method", "members", "controls", *(f"false positives, {100 * rate:g} %" for rate in rates)]
    what = (
        f"Members, in %, whose MSE is below that of all but so many controls, of {_about(summary)}; {INTERVALS}. Over "
        "all masks an image counts with its least MSE. Controls that are nearly a member do not count. A rate of false "
        "positives that is less than one control is not told."
    )
    return Sheet(Table(_caption(summary, what), header, lines, _notes(summary), names=2), numbers)


def _to(value: float | None, digits: int) -> str | None:
    return None if value is None else f"{value:.{digits}f}"

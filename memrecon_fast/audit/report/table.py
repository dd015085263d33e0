"""The rates of a run as a table for the terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from memrecon_fast.audit.analysis.reconstruction_error import in_words, warning_of
from memrecon_fast.audit.store.manifest import ERRORS
from memrecon_fast.common.text import escaped, listed
from memrecon_fast.methods import Traits, without_model
from memrecon_fast.metrics import THRESHOLD_NAMES


def make_table(summary: Mapping[str, Any]) -> Table:
    """One line for each mask and method; members beside controls where there are any; above them how well the model
    reconstructs the images as they are. summary: of `make_summary`."""
    table = _table_without_originals(summary) if summary["degraded"] else _table_against_originals(summary)
    if errors := summary.get(ERRORS):
        warning = warning_of(errors)
        table.title = Text(warning or in_words(errors), style="bold red" if warning else "")
        table.title_justify = "left"
    if summary.get("doubts"):
        table.title = Text(in_doubt(summary["doubts"]), style="bold red")
        table.title_justify = "left"
    return table


def make_given_out_table(summary: Mapping[str, Any]) -> Table | None:
    """One line for each mask and method by which a member came out of another image; None where none did."""
    rows = {(row["mask"], row["method"], row["split"]): row for row in summary["rows"]}
    splits = [split for split in ("members", "controls") if split in summary["images"]]
    shown = [
        (mask, method)
        for mask in summary["masks"]
        for method in summary["methods"]
        if any(rows.get((mask, method, split), {}).get("other_member") for split in splits)
    ]
    if not shown:
        return None
    caption = "Estimates that are another member than the image degraded: their share, how many members."
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, caption=caption, caption_justify="left")
    table.title, table.title_justify = Text("\nAnother training image came out", style="bold"), "left"
    table.add_column("mask", overflow="fold")
    table.add_column("method", no_wrap=True)
    for split in splits:
        for heading in (split, "different"):
            table.add_column(heading, justify="right", no_wrap=True)
    before = ""
    for mask, method in shown:
        cells, before = ["" if mask == before else escaped(mask), method], mask
        for split in splits:
            row = rows.get((mask, method, split), {})
            known = row.get("compared")
            share = f"{row['other_member'] / row['compared']:.1%}" if known else "–"
            cells += [share, str(row["different_members"]) if known else "–"]
        table.add_row(*map(Text, cells))
    return table


def in_doubt(doubts: Sequence[str]) -> str:
    """What is said above all results of a run whose model did not answer as it did."""
    return f"These results are in doubt: {'; '.join(doubts)}."


def _table_without_originals(summary: Mapping[str, Any]) -> Table:
    rows = {(row["method"], row["split"]): row for row in summary["rows"] if row["images"]}
    caption = "Originals unknown. Recognized: a score below the threshold."
    if "controls" in summary["images"]:
        caption += " False positives: with 95 % confidence."
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, caption=caption, caption_justify="left")
    table.add_column("method", no_wrap=True)
    for heading in ("recognized", "evals", "controls", "threshold", "false positives"):
        table.add_column(heading, justify="right", no_wrap=True)
    for one in summary["recognition"]:
        image, control = (rows.get((one["method"], split)) for split in ("members", "controls"))
        bound = one["false_positive_bound"]
        cells = [
            one["method"],
            f"{image['recognized_rate']:.1%}" if image else "–",
            _evaluations(image),
            f"{control['recognized_rate']:.1%}" if control else "–",
            f"{one['threshold']:.0e}",
            "unknown" if bound is None else f"≤ {bound:.1%}",
        ]
        table.add_row(*map(Text, cells))
    return table


def _table_against_originals(summary: Mapping[str, Any]) -> Table:
    rows = {(row["mask"], row["method"], row["split"]): row for row in summary["rows"] if row["images"]}
    with_controls = "controls" in summary["images"]
    unaided = {row["mask"]: row for row in summary.get("without_model", []) if row["split"] == "members"}
    traits = {method: Traits(**one) for method, one in summary["traits"].items()}
    without = without_model(traits) if unaided else []
    caption = _caption(with_controls, without) + _diverged(rows.values())
    # 80 letters are few
    look: Any = {"box": box.SIMPLE_HEAD, "pad_edge": False, "show_edge": False, "padding": (0, 1, 0, 0)}
    table = Table(caption=caption, caption_justify="left", **look)
    table.add_column("mask", overflow="fold")  # two long names must stay apart
    table.add_column("method", no_wrap=True)
    for heading in ("approx.", *(["no model"] if without else []), "accurate", "PSNR", "evals"):
        table.add_column(heading, justify="right", no_wrap=True)
    if with_controls:
        for heading in ("controls", "PSNR"):
            table.add_column(heading, justify="right", no_wrap=True)
    for mask in summary["masks"]:
        for number, method in enumerate(summary["methods"]):
            member, control = (rows.get((mask, method, split)) for split in ("members", "controls"))
            approximate, accurate = _rates(member)
            beside = [_unaided(method, without, unaided.get(mask))] if without else []
            cells = [escaped(mask) if number == 0 else "", method, approximate, *beside, accurate, *_effort(member)]
            if with_controls:
                cells += [_rates(control)[0], _effort(control)[0]]
            table.add_row(*map(Text, cells), end_section=number == len(summary["methods"]) - 1)
    return table


def _rates(row: Mapping[str, Any] | None) -> tuple[str, str]:
    if row is None:
        return "–", "–"
    return f"{row['approximate_rate']:.1%}", f"{row['accurate_rate']:.1%}"


def _unaided(method: str, without: Sequence[str], row: Mapping[str, Any] | None) -> str:
    """What comes back of the same images without the model, beside a method that uses it."""
    return "" if method in without or row is None else f"{row['approximate_rate']:.1%}"


def _effort(row: Mapping[str, Any] | None) -> tuple[str, str]:
    if row is None:
        return "–", "–"
    return f"{row['mean_psnr']:.1f}", _evaluations(row)


def _diverged(rows: Iterable[Mapping[str, Any]]) -> str:
    """For the caption: how many recoveries diverged by each method, where any did, over all masks."""
    counts: dict[str, Counter[str]] = {}
    for row in rows:
        if row["diverged"]:
            counts.setdefault(row["method"], Counter())[row["split"]] += row["diverged"]
    told = (f"{method} {listed([f'{n} of {split}' for split, n in of.items()])}" for method, of in counts.items())
    return f" Diverged: {'; '.join(told)}." if counts else ""


def _evaluations(row: Mapping[str, Any] | None) -> str:
    known = row and row["mean_evaluations"]
    return "–" if known is None else f"{known:.0f}"


def _caption(with_controls: bool, without: Sequence[str]) -> str:
    limits = f"approximately (MSE < {THRESHOLD_NAMES['approximate']}), accurately (MSE < {THRESHOLD_NAMES['accurate']})"
    text = f"Recovered: {limits}. PSNR: mean, dB."
    if without:
        text += f" No model: approximately by {' or '.join(without)}, which needs no memory."
    return text + (" Controls: approximately." if with_controls else "")

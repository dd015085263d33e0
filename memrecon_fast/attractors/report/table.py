"""What a survey found, as tables for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from memrecon_fast.attractors.report.sentences import in_words_of_median
from memrecon_fast.audit.analysis.reconstruction_error import in_words, warning_of
from memrecon_fast.audit.report.table import in_doubt
from memrecon_fast.audit.store.manifest import ERRORS

_CAPTION = "ρ, the largest |eigenvalue| at an image, says nothing where ‖f(x) − x‖²/d is not small."


def make_tables(summary: Mapping[str, Any]) -> Iterator[Table | Text]:
    """One for each kind of result, and what is said above them. summary: of `make_summary`."""
    yield from _first(summary)
    if summary["stability"]:
        yield _stability(summary)
    if summary["harvest"] is not None:
        yield _harvest(summary)
    if summary["curve"] is not None:
        yield _curve(summary["curve"])
    for basins in summary["basins"]:
        yield _basins(basins)


def _first(summary: Mapping[str, Any]) -> Iterator[Text]:
    """What must be known before any number is read."""
    if errors := summary.get(ERRORS):
        warning = warning_of(errors)
        yield Text(warning or in_words(errors), style="bold red" if warning else "")
    if summary["doubts"]:
        yield Text(in_doubt(summary["doubts"]), style="bold red")


def _stability(summary: Mapping[str, Any]) -> Table:
    rows = summary["stability"]
    table = _new_table(_CAPTION)
    table.add_column("", no_wrap=True)
    for row in rows:
        table.add_column(row["split"], justify="right", no_wrap=True)
    lines: dict[str, list[str]] = {
        "images": [f"{row['images']}" for row in rows],
        "attractors": [f"{row['attractor']} ({row['attractor_rate']:.0%})" for row in rows],
        "marginal": [f"{row['marginal']}" for row in rows],
        "repellers": [f"{row['repeller']}" for row in rows],
        "no fixed point near": [f"{row['no_fixed_point']}" for row in rows],
        "unknown": [f"{row['unknown']}" for row in rows],
        "median ‖f(x) − x‖²/d": [_number(row["median_residual_mse"], ".1e") for row in rows],
        "median ρ": [_number(row["median_radius"], ".3f") for row in rows],
        "ρ < 1, whatever the residual": [f"{row['radius_below_1']}" for row in rows],
    }
    for name, cells in lines.items():
        table.add_row(name, *cells)
    return table


def _harvest(summary: Mapping[str, Any]) -> Table:
    harvest = summary["harvest"]
    table = _new_table(f"A harvest iterates the model from random starts ({harvest['kind']}): it needs no image.")
    table.add_column("harvest", no_wrap=True)
    table.add_column("", justify="right", no_wrap=True)
    lines = {"starts": f"{harvest['starts']}"}
    if (found := harvest["found"]) is not None:
        lines["different fixed points"] = f"{found['fixed_points']}"
        for split in summary["images"]:
            lines[f"different {split} among them"] = f"{found[split]} of {summary['images'][split]}"
        if found["others"] is not None:
            lines["neither member nor control" if "controls" in summary["images"] else "no member"] = (
                f"{found['others']}"
            )
            if found["resemble"]:
                lines["  that resemble the nearest member"] = f"{found['resemble']}"
            lines["starts that ended in a member"] = f"{found['share_in_members']:.1%}"
    lines["starts on cycles, moving, diverged"] = f"{harvest['cycles']}, {harvest['moving']}, {harvest['diverged']}"
    lines["unseen share of starts, bound (95 %)"] = f"{harvest['unseen_share']:.1%}, {harvest['unseen_bound']:.1%}"
    lines["evaluations a start"] = f"{harvest['evaluations'] / max(harvest['starts'], 1):.0f}"
    for name, cell in lines.items():
        table.add_row(name, cell)
    return table


def _curve(curve: Mapping[str, Any]) -> Table:
    table = _new_table(f"Of {curve['starts']} random starts ({curve['kind']}); intervals of 95 %.")
    table.add_column("applications", justify="right", no_wrap=True)
    table.add_column("starts that are a member", justify="right", no_wrap=True)
    table.add_column("different members", justify="right", no_wrap=True)
    table.add_column("diverged", justify="right", no_wrap=True)
    columns = zip(*(curve[name] for name in ("times", "share", "interval", "different", "diverged")), strict=True)
    for time, share, (low, high), *counts in columns:
        table.add_row(f"{time}", f"{share:.1%} ({100 * low:.1f}–{100 * high:.1f} %)", *map(str, counts))
    return table


def _basins(basins: Mapping[str, Any]) -> Table:
    noise = basins["degradation"] == "noise"
    table = _new_table(f"An image comes back where at least half of the draws do. {in_words_of_median(basins)}")
    table.add_column("noise, σ" if noise else "pixels erased", justify="right", no_wrap=True)
    table.add_column("members that come back", justify="right", no_wrap=True)
    table.add_column("that fall to another member", justify="right", no_wrap=True)
    for level, back, another in zip(*(basins[name] for name in ("levels", "return", "to_another")), strict=True):
        table.add_row(f"{level:g}" if noise else f"{level:.0%}", f"{back} of {basins['images']}", f"{another}")
    return table


def _number(value: float | None, style: str) -> str:
    return "–" if value is None else format(value, style)


def _new_table(caption: str) -> Table:
    return Table(box=box.SIMPLE_HEAD, pad_edge=False, caption=caption, caption_justify="left")

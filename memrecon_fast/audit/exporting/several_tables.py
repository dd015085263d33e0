"""The tables of a comparison of runs, for papers and for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table as RichTable
from rich.text import Text

from memrecon_fast.audit.exporting.files import Sheet
from memrecon_fast.audit.exporting.side_by_side import OVER_MASKS, SideBySide, in_columns
from memrecon_fast.audit.exporting.tables import INTERVALS, columns_of, definition, percent
from memrecon_fast.common.tables import Table
from memrecon_fast.common.text import counted, escaped

_SHORT = {"approximate": "approx."}
_ERROR = "Error: the mean squared error with which the model reconstructs its members."
_SPREAD = "Mean ± standard deviation over runs, and in parentheses the lowest and the highest."

Line = list[str | float | None]


def sheets_of(side: SideBySide) -> dict[str, Sheet]:
    """By file name: "runs", over all masks; "masks", mean and spread over runs; "rates" of each run and mask."""
    return {"runs": _runs(side), "masks": _masks(side), "rates": _rates(side)}


def terminal_tables(side: SideBySide) -> list[RichTable]:
    """Each run over all masks, and mean and spread by mask, at most 80 columns wide."""
    return [_terminal_runs(side), _terminal_masks(side)]


def error_in_words(error: float | None) -> str:
    """ "1.2e-09"; "–" where it was not measured, "inf" where the model's answer is not finite."""
    return "–" if error is None else f"{error:.1e}"


def about(side: SideBySide) -> str:
    """How many images under which masks, in words."""
    return f"{' and '.join(f'{count} {split}' for split, count in side.images.items())}"


def over_masks(side: SideBySide) -> str:
    """What it is to come back."""
    return (
        f"under {escaped(side.masks[0])}" if len(side.masks) == 1 else f"under at least one of {len(side.masks)} masks"
    )


def _runs(side: SideBySide) -> Sheet:
    columns = columns_of(side.images, side.verdicts)
    header = ["run", "error", "method", *(f"{split}, {verdict}" for split, verdict in columns)]
    lines: list[Line] = []
    for run in side.runs:
        for number, method in enumerate(side.methods):
            line: Line = [run.label, error_in_words(run.error)] if number == 0 else ["", ""]
            rows = [(side.row(run.label, OVER_MASKS, method, split), verdict) for split, verdict in columns]
            lines.append([*line, method, *(percent(row.get(f"{v}_rate"), row.get(f"{v}_interval")) for row, v in rows)])
    for group in side.groups:
        for number, method in enumerate(side.methods):
            cells = [side.spread_of(group, OVER_MASKS, method, split) for split, _ in columns]
            if cells[0].get("runs", 0) > 1:
                name = f"{group}, {counted(cells[0]['runs'], 'run')}" if group else counted(cells[0]["runs"], "run")
                spreads = [_spread(cell, verdict) for cell, (_, verdict) in zip(cells, columns, strict=True)]
                lines.append(["" if number else name, "", method, *spreads])
    caption = (
        f"Recovered {over_masks(side)}, % of the same {about(side)}; {INTERVALS}. {definition(side.verdicts)} {_ERROR}"
    )
    if any(one["runs"] > 1 for one in side.spread):
        caption += f" Last: {_SPREAD[0].lower()}{_SPREAD[1:]}"
    numbers = [_numbers(row, side) for row in side.rows if row["mask"] is OVER_MASKS]
    return Sheet(Table(caption, header, lines, side.remarks, names=3), numbers)


def _masks(side: SideBySide) -> Sheet:
    columns, several = columns_of(side.images, side.verdicts), len(side.groups) > 1
    header = [*(["runs"] if several else []), "mask", "method"]
    header += [f"{split}, {verdict}" for split, verdict in columns]
    lines: list[Line] = []
    for group in side.groups:
        for mask in side.masks:
            for number, method in enumerate(side.methods):
                line: Line = [*([group] if several else []), escaped(mask)] if number == 0 else [""] * (1 + several)
                cells = [(side.spread_of(group, mask, method, split), verdict) for split, verdict in columns]
                lines.append([*line, method, *(_spread(cell, verdict) for cell, verdict in cells)])
    runs = counted(len(side.runs), "run")
    caption = (
        f"Recovered in {runs}, % of the same {about(side)}, by mask and method. "
        f"{_SPREAD + ' ' if any(one['runs'] > 1 for one in side.spread) else ''}{definition(side.verdicts)}"
    )
    numbers = [{**row, "mask": row["mask"] or ""} for row in side.spread if row["mask"] is not OVER_MASKS]
    return Sheet(Table(caption, header, lines, side.remarks, names=2 + several), numbers)


def _rates(side: SideBySide) -> Sheet:
    columns = columns_of(side.images, side.verdicts)
    header = ["run", "mask", "method", *(f"{split}, {verdict}" for split, verdict in columns)]
    lines: list[Line] = []
    for run in side.runs:
        for mask in side.masks:
            for method in side.methods:
                rows = [(side.row(run.label, mask, method, split), verdict) for split, verdict in columns]
                rates = [percent(row.get(f"{v}_rate"), row.get(f"{v}_interval")) for row, v in rows]
                lines.append([run.label, escaped(mask), method, *rates])
    caption = (
        f"Recovered, % of the same {about(side)}, by run, mask and method; {INTERVALS}. {definition(side.verdicts)}"
    )
    numbers = [_numbers(row, side) for row in side.rows if row["mask"] is not OVER_MASKS]
    return Sheet(Table(caption, header, lines, side.remarks, names=3), numbers)


def _numbers(row: Mapping[str, Any], side: SideBySide) -> dict[str, Any]:
    columns = in_columns(row, side.verdicts)
    return {name: value for name, value in columns.items() if name != "mask" or value is not OVER_MASKS}


def _spread(cell: Mapping[str, Any], verdict: str, ends: bool = True) -> str:
    """ "95.6 ± 1.9 (93.3–96.7)"; the rate alone where there is one run."""
    mean, deviation = cell.get(f"{verdict}_mean"), cell.get(f"{verdict}_deviation")
    if mean is None:
        return "–"
    if deviation is None:
        return f"{100 * mean:.1f}"
    text = f"{100 * mean:.1f} ± {100 * deviation:.1f}"
    return text + (f" ({100 * cell[f'{verdict}_lowest']:.1f}–{100 * cell[f'{verdict}_highest']:.1f})" if ends else "")


def _terminal_columns(side: SideBySide) -> list[tuple[str, str, str]]:
    """Split, verdict and heading: all verdicts on members, the loosest on controls."""
    columns = columns_of(side.images, side.verdicts)
    return [(s, verdict, s if s == "controls" else _SHORT.get(verdict, verdict)) for s, verdict in columns]


def _terminal_runs(side: SideBySide) -> RichTable:
    columns = _terminal_columns(side)
    caption = f"Recovered {over_masks(side)}, % of the same {about(side)}. {definition(side.verdicts)} {_ERROR}"
    table = _table(caption, ["run"], ["error"], columns)
    for run in side.runs:
        for number, method in enumerate(side.methods):
            first = [run.label, error_in_words(run.error)] if number == 0 else ["", ""]
            rates = [side.row(run.label, OVER_MASKS, method, split).get(f"{v}_rate") for split, v, _ in columns]
            cells = [*first, method, *("–" if rate is None else f"{100 * rate:.1f}" for rate in rates)]
            table.add_row(*map(Text, cells), end_section=number == len(side.methods) - 1)
    for group in side.groups:
        _add_spread(table, side, group, OVER_MASKS, columns, [group or "all runs", ""])
    return table


def _terminal_masks(side: SideBySide) -> RichTable:
    columns, several = _terminal_columns(side), len(side.groups) > 1
    spread = any(one["runs"] > 1 for one in side.spread)
    caption = "By mask." + (" Mean ± standard deviation over runs." if spread else "")
    table = _table(caption, [*(["runs"] if several else []), "mask"], [], columns)
    for group in side.groups:
        for mask in side.masks:
            first = [*([group] if several else []), escaped(mask)]
            _add_spread(table, side, group, mask, columns, first, always=True)
    return table


def _add_spread(
    table: RichTable,
    side: SideBySide,
    group: str,
    mask: str | None,
    columns: Sequence[tuple[str, str, str]],
    first: Sequence[str],
    always: bool = False,
) -> None:
    """A line for each method; where there is one run only if `always`."""
    for number, method in enumerate(side.methods):
        cells = [side.spread_of(group, mask, method, split) for split, _, _ in columns]
        if always or cells[0].get("runs", 0) > 1:
            texts = [_spread(cell, verdict, ends=False) for cell, (_, verdict, _) in zip(cells, columns, strict=True)]
            names = first if number == 0 else [""] * len(first)
            table.add_row(*map(Text, [*names, method, *texts]), end_section=number == len(side.methods) - 1)


def _table(
    caption: str, names: Sequence[str], numbers: Sequence[str], columns: Sequence[tuple[str, str, str]]
) -> RichTable:
    table = RichTable(box=box.SIMPLE_HEAD, pad_edge=False, caption=caption, caption_justify="left")
    for name in names:
        table.add_column(name, overflow="fold")
    for number in numbers:
        table.add_column(number, justify="right", no_wrap=True)
    table.add_column("method", no_wrap=True)
    for _, _, heading in columns:
        table.add_column(heading, justify="right", no_wrap=True)
    return table

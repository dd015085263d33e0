"""The results of the GPU benchmark in brief: what a person sees at once, where only the end of the output is shown.

What matters most comes first, and what has no more room is left out: it is in the files.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

Row = dict[str, Any]

MOST = 10_000
"""Characters, so that with a few lines around it it fits into 12,000."""
LINE = 700
"""Characters of a line."""


def brief(results: dict[str, Any], most: int = MOST) -> str:
    """Checks and errors, targets, and the rows of all sections; no more than so many characters."""
    lines = [line if len(line) <= LINE else line[: LINE - 1] + "…" for line in _lines(results)]
    kept: list[str] = []
    room = most - 60  # for the last line
    for line in lines:
        room -= len(line) + 1
        if room < 0:
            kept.append(f"… and {len(lines) - len(kept)} more lines, see the files")
            break
        kept.append(line)
    return "\n".join(kept) + "\n"


def _lines(results: dict[str, Any]) -> Iterator[str]:
    where, sections = results["where"], results["sections"]
    if results["rehearsal"]:
        yield "Rehearsal: times mean nothing."
    known = ("gpu", "driver", "cuda", "python", "torch", "triton", "numpy", "commit")
    yield ", ".join(f"{name} {where[name]}" for name in known if name in where)
    yield f"{results['seconds']:.0f} of {results['minutes'] * 60:.0f} s"
    yield from (f"ERROR {error}" for error in results["errors"])
    if results["skipped"]:
        yield f"left out: {'; '.join(results['skipped'])}"
    for title, name, lines in _SECTIONS:
        if name in sections:
            yield f"[{title}]"
            yield from lines(sections[name])


def _checks(section: Row) -> Iterator[str]:
    failed = [row for row in section["rows"] if not row["passed"]]
    yield f"{len(section['rows']) - len(failed)} of {len(section['rows'])} passed"
    yield from (f"FAILED {row['check']}: {row['seen']}"[:250] for row in failed)


def _targets(section: Row) -> Iterator[str]:
    """One line for each target: how often it was met, and where it was not."""
    for what, targets in _by(section["targets"], "what", "target"):
        missed = [row for row in targets if not row["met"]]
        line = f"{' '.join(what)}: {len(targets) - len(missed)} of {len(targets)} met"
        if missed:
            line += f"; not {', '.join(_missed(row) for row in missed)}"
        yield line


def _missed(row: Row) -> str:
    return f"{_short(row['model'])} {row['images']} {row['format']} {row['ratio']:.3f}"


def _machine(section: Row) -> Iterator[str]:
    yield "; ".join(f"{row['what']} {row['rate']:.4g}" for row in section["rows"])


def _bandwidth(section: Row) -> Iterator[str]:
    yield "rows × d: µs, share of a copy, times plain torch"
    for (solver, operation), rows in _by(section["rows"], "solver", "operation"):
        yield f"{solver} {operation}: " + "; ".join(
            f"{row['rows']}×{row['d']} {row['microseconds']['kernel']['p50']:.3g} {row['share of copy']['p50']:.0%} "
            f"{row['plain torch']['p50']:.1f}"
            for row in rows
        )


def _audit(section: Row) -> Iterator[str]:
    for row in section["rows"]:
        yield (
            f"{row['solver']} {row['precision']}: {row['images per second']:.0f} images/s ({row['images']} in "
            f"{row['seconds']:.1f} s, {row['slots']} slots, {row['execution']}), occupancy {row['occupancy']:.0%}, "
            f"in blocks {row['in blocks']:.0%}, {row['evaluations, mean']:.0f} evaluations, accurate "
            f"{row['members, accurate']:.1%} of members, {row['controls, accurate']:.1%} of controls"
        )


def _blocks(section: Row) -> Iterator[str]:
    yield "format: block in ms, block / bare (at full bandwidth), eager / block, plain loop / block"
    for (solver, model, images), rows in _by(section["rows"], "solver", "model", "images"):
        yield f"{solver} {_short(model)} {images}: " + "; ".join(
            f"{row['format']} {row['block ms']['p50']:.3g} {row['block / bare']['p50']:.3f} "
            f"({row['block / bare at full bandwidth']:.2f})"
            + "".join(
                f" {row[ratio]['p50']:.2f}" for ratio in ("eager / block", "plain loop / block") if row.get(ratio)
            )
            for row in rows
        )


def _profile(section: Row) -> Iterator[str]:
    for row in section["rows"]:
        yield f"{row['precision']}: idle {row['idle']:.2%}, at boundaries of blocks {row['idle at boundaries']:.2%}"
        yield "; ".join(f"{kernel['kernel'][:40]} {kernel['share']:.0%}" for kernel in row["top"][:6])


_SECTIONS: tuple[tuple[str, str, Callable[[Row], Iterator[str]]], ...] = (
    ("checks", "checks", _checks),
    ("targets", "blocks", _targets),
    ("machine", "machine", _machine),
    ("bandwidth", "bandwidth", _bandwidth),
    ("audit", "audit", _audit),
    ("blocks", "blocks", _blocks),
    ("profile", "profile", _profile),
)
"""Titles, and the sections of the results that they are of; those that matter most first."""


def _short(model: str) -> str:
    """Without the size of the images: "FC 10 × 1024"."""
    return model.split(",")[0]


def _by(rows: Iterable[Row], *keys: str) -> Iterator[tuple[tuple[str, ...], list[Row]]]:
    """The rows with the same entries together, in the order in which these come first."""
    rows = list(rows)
    order = list(dict.fromkeys(tuple(str(row[key]) for key in keys) for row in rows))
    ordered = sorted(rows, key=lambda row: order.index(tuple(str(row[key]) for key in keys)))
    for entries, some in itertools.groupby(ordered, key=lambda row: tuple(str(row[key]) for key in keys)):
        yield entries, list(some)

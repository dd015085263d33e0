"""Tables in LaTeX, for papers that use the package booktabs."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from memrecon_fast.common.tables import Table, shown

_SIZES = ((75, ()), (105, (r"\footnotesize", r"\setlength{\tabcolsep}{3pt}")))
_SMALLEST = (r"\scriptsize", r"\setlength{\tabcolsep}{2pt}")
"""So that a page is wide enough: up to so many letters in a line, and beyond."""
_SPECIAL = {
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "–": "--",
    "×": r"$\times$",
    "γ": r"$\gamma$",
    "σ": r"$\sigma$",
    "≤": r"$\leq$",
    "<": "$<$",
    ">": "$>$",
    "|": "$|$",
    "≥": r"$\geq$",
    "±": r"$\pm$",
    "…": r"\ldots{}",
}


def latex_table(table: Table) -> str:
    """A `table` environment: text to the left, numbers to the right; below it the notes, as comments.

    Adjacent columns "members, accurate" and "members, approximate" get the heading "members" above both. Wide tables
    are in smaller type.
    """
    columns = list(zip(*table.rows, strict=True)) or [()] * len(table.header)
    above, header = _headings(table.header)
    rows = [[shown(value) for value in row] for row in table.rows]
    widest = sum(max(map(len, column)) + 1 for column in zip(header, *rows, strict=True))
    kinds = "".join("l" if any(isinstance(value, str) for value in column) else "r" for column in columns)
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{escaped(table.caption)}}}",
        *next((size for letters, size in _SIZES if widest <= letters), _SMALLEST),
        rf"\begin{{tabular}}{{{kinds}}}",
        r"\toprule",
        *above,
        _line(header),
        r"\midrule",
        *map(_line, rows),
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
        *(f"% {' '.join(note.split())}" for note in table.notes),
    ]
    return "\n".join(lines) + "\n"


def escaped(text: str) -> str:
    """As LaTeX shows it."""
    return "".join(_SPECIAL.get(letter, letter) for letter in text)


def _headings(header: Sequence[str]) -> tuple[list[str], list[str]]:
    """The lines of headings that stand above several columns, none where there are none, and what is left of each."""
    found = itertools.groupby(range(len(header)), lambda at: header[at].rpartition(", ")[0] or at)
    groups = [(str(name), list(columns)) for name, columns in found]
    groups = [(name if len(columns) > 1 else "", columns) for name, columns in groups]
    if not any(name for name, _ in groups):
        return [], list(header)
    cells = [rf"\multicolumn{{{len(columns)}}}{{c}}{{{escaped(name)}}}" if name else "" for name, columns in groups]
    rules = " ".join(rf"\cmidrule(lr){{{columns[0] + 1}-{columns[-1] + 1}}}" for name, columns in groups if name)
    left = [header[at].removeprefix(f"{name}, ") if name else header[at] for name, columns in groups for at in columns]
    return [" & ".join(cells) + r" \\", rules], left


def _line(cells: list[str]) -> str:
    line = " & ".join(map(escaped, cells)) + r" \\"
    return f"{{}}{line}" if line.startswith(("[", "*")) else line  # which the line before would take for its own

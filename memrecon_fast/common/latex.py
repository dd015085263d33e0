"""Tables in LaTeX, for papers that use the package booktabs."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from memrecon_fast.common.tables import Table, shown

_WIDTH = 345.0
"""Of a line of `article` in 10pt on A4, in points."""
_SIZES = (
    ((), 10.0, 6.0),
    ((r"\small", r"\setlength{\tabcolsep}{4pt}"), 9.3, 4.0),
    ((r"\footnotesize", r"\setlength{\tabcolsep}{3pt}"), 8.5, 3.0),
    ((r"\scriptsize", r"\setlength{\tabcolsep}{2pt}"), 8.0, 2.0),
)
"""Commands, points of an em (small letters are wider for their height), and the space beside a column."""
_EMS = {
    **dict.fromkeys("0123456789", 0.5), **dict.fromkeys("ijl.,:;'!|[]", 0.28), **dict.fromkeys("frstI()-/ ", 0.4),
    **dict.fromkeys("mwMW%@_–<>±×≤≥", 0.84), **dict.fromkeys("ABCDEFGHJKLNOPQRSTUVXYZ&…", 0.76),
}  # fmt: skip
"""Widths of letters of Computer Modern, nowhere too small; all others have that of "b"."""
_EM = 0.56
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


def latex_table(table: Table, label: str) -> str:
    """A `table` environment: text to the left, numbers to the right; below it the notes, as comments.

    Adjacent columns "members, accurate" and "members, approximate" get the heading "members" above both. A table that
    is wider than a line of `article` is in smaller type; one that is so in the smallest is in parts below each other,
    each with the columns that name its rows. label: for `\\ref`.
    """
    cells = [list(table.header), *([shown(value) for value in row] for row in table.rows)]
    widths = _Widths(cells, table.names)
    everything = list(range(len(table.header)))
    size, parts = next(((size, [everything]) for size in _SIZES if widths.fit(everything, size)), (_SIZES[-1], []))
    text = [any(isinstance(value, str) for value in column) for column in zip(*table.rows, strict=True)]
    blocks = [_tabular(cells, columns, text or [False] * len(everything)) for columns in parts or widths.parts(size)]
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{escaped(table.caption)}}}",
        rf"\label{{{label}}}",
        *size[0],
        *itertools.chain(*([*([r"\\[1ex]"] if at else []), *block] for at, block in enumerate(blocks))),
        r"\end{table}",
        *(f"% {' '.join(note.split())}" for note in table.notes),
    ]
    return "\n".join(lines) + "\n"


class _Widths:
    """How wide columns are. cells: of all rows, the header first. names: so many columns name a row."""

    def __init__(self, cells: Sequence[Sequence[str]], names: int) -> None:
        _, header = _headings(cells[0])
        self._ems = [max(map(_ems, column)) for column in zip(header, *cells[1:], strict=True)]
        self._names = list(range(names))
        self._groups = [columns for _, columns in _groups(cells[0]) if columns[0] >= names]

    def fit(self, columns: Sequence[int], size: tuple[Sequence[str], float, float]) -> bool:
        """Whether these are no wider than a line."""
        _, em, beside = size
        return sum(self._ems[at] * em + 2 * beside for at in columns) <= _WIDTH

    def parts(self, size: tuple[Sequence[str], float, float]) -> list[list[int]]:
        """The columns in as few parts as fit, each with those that name a row; columns under one heading stay together
        where they can."""
        parts: list[list[int]] = []
        for group in self._groups:
            whole = self.fit([*self._names, *group], size)
            for columns in [group] if whole else [[column] for column in group]:
                if parts and self.fit([*parts[-1], *columns], size):
                    parts[-1] += columns
                else:
                    parts.append([*self._names, *columns])
        return parts or [self._names]


def _tabular(cells: Sequence[Sequence[str]], columns: Sequence[int], text: Sequence[bool]) -> list[str]:
    above, header = _headings([cells[0][at] for at in columns])
    return [
        rf"\begin{{tabular}}{{{''.join('l' if text[at] else 'r' for at in columns)}}}",
        r"\toprule",
        *above,
        _line(header),
        r"\midrule",
        *(_line([row[at] for at in columns]) for row in cells[1:]),
        r"\bottomrule",
        r"\end{tabular}",
    ]


def _ems(text: str) -> float:
    return sum(_EMS.get(letter, _EM) for letter in text)


def escaped(text: str) -> str:
    """As LaTeX shows it."""
    return "".join(_SPECIAL.get(letter, letter) for letter in text)


def _headings(header: Sequence[str]) -> tuple[list[str], list[str]]:
    """The lines of headings that stand above several columns, none where there are none, and what is left of each."""
    groups = _groups(header)
    if not any(name for name, _ in groups):
        return [], list(header)
    cells = [rf"\multicolumn{{{len(columns)}}}{{c}}{{{escaped(name)}}}" if name else "" for name, columns in groups]
    rules = " ".join(rf"\cmidrule(lr){{{columns[0] + 1}-{columns[-1] + 1}}}" for name, columns in groups if name)
    left = [header[at].removeprefix(f"{name}, ") if name else header[at] for name, columns in groups for at in columns]
    return [" & ".join(cells) + r" \\", rules], left


def _groups(header: Sequence[str]) -> list[tuple[str, list[int]]]:
    """Adjacent columns with what stands above them; "" above one that is alone."""
    found = itertools.groupby(range(len(header)), lambda at: header[at].rpartition(", ")[0] or at)
    groups = [(str(name), list(columns)) for name, columns in found]
    return [(name if len(columns) > 1 else "", columns) for name, columns in groups]


def _line(cells: list[str]) -> str:
    line = " & ".join(map(escaped, cells)) + r" \\"
    return f"{{}}{line}" if line.startswith(("[", "*")) else line  # which the line before would take for its own

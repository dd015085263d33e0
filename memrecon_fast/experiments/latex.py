"""Tables in LaTeX, for papers that use the package booktabs."""

from __future__ import annotations

from memrecon_fast.experiments.experiment import Table

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
}


def latex_table(table: Table) -> str:
    """A `table` environment: text to the left, numbers to the right."""
    columns = list(zip(*table.rows, strict=True)) or [()] * len(table.header)
    kinds = "".join("l" if any(isinstance(value, str) for value in column) else "r" for column in columns)
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{escaped(table.caption)}}}",
        rf"\begin{{tabular}}{{{kinds}}}",
        r"\toprule",
        _line(list(table.header)),
        r"\midrule",
        *(_line([_shown(value) for value in row]) for row in table.rows),
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def escaped(text: str) -> str:
    """As LaTeX shows it."""
    return "".join(_SPECIAL.get(letter, letter) for letter in text)


def _line(cells: list[str]) -> str:
    return " & ".join(map(escaped, cells)) + r" \\"


def _shown(value: str | float | None) -> str:
    if value is None:
        return "–"
    return str(value) if isinstance(value, (str, int)) else f"{value:g}"

from __future__ import annotations

from memrecon_fast.common.latex import latex_table
from memrecon_fast.common.tables import Table, markdown_table

TABLE = Table("x < 1", ["name", "rate"], [["a|b", 0.5], ["[1mm]", None], ["*", float("nan")]], ["50 % of\nthem"])


def test_markdown() -> None:
    caption, table, note = markdown_table(TABLE).split("\n\n")
    assert caption == "x \\< 1"
    assert table.splitlines() == [
        "| name | rate |", "| --- | ---: |", "| a\\|b | 0.5 |", "| \\[1mm\\] | – |", "| \\* | nan |",
    ]  # fmt: skip
    assert note.split() == ["50", "%", "of", "them"]


def test_latex_takes_no_name_for_an_argument_of_the_line_before() -> None:
    lines = latex_table(TABLE).splitlines()
    rows = lines[lines.index(r"\midrule") + 1 : lines.index(r"\bottomrule")]
    assert rows == [r"a$|$b & 0.5 \\", r"{}[1mm] & -- \\", r"{}* & nan \\"]
    assert lines[-1] == "% 50 % of them"


def test_latex_groups_columns_under_one_heading() -> None:
    header = ["mask", "share, %", "members, accurate", "members, approximate", "controls, accurate"]
    lines = latex_table(Table("", header, [["half", 1, 2, 3, 4]])).splitlines()
    at = lines.index(r"\toprule")
    assert lines[at + 1 : at + 5] == [
        r" &  & \multicolumn{2}{c}{members} &  \\", r"\cmidrule(lr){3-4}",
        r"mask & share, \% & accurate & approximate & controls, accurate \\", r"\midrule",
    ]  # fmt: skip


def test_latex_of_wide_tables_is_small() -> None:
    sizes = [
        [size in latex_table(Table("", ["a"], [["x" * n]])) for size in ("footnote", "script")]
        for n in (74, 75, 104, 105)
    ]
    assert sizes == [[False, False], [True, False], [True, False], [False, True]]

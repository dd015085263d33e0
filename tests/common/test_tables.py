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
    lines = latex_table(TABLE, "tab:x").splitlines()
    rows = lines[lines.index(r"\midrule") + 1 : lines.index(r"\bottomrule")]
    assert rows == [r"a$|$b & 0.5 \\", r"{}[1mm] & -- \\", r"{}* & nan \\"]
    assert lines[-1] == "% 50 % of them"


def test_latex_groups_columns_under_one_heading() -> None:
    header = ["mask", "share, %", "members, accurate", "members, approximate", "controls, accurate"]
    lines = latex_table(Table("", header, [["half", 1, 2, 3, 4]]), "tab:x").splitlines()
    at = lines.index(r"\toprule")
    assert lines[at + 1 : at + 5] == [
        r" &  & \multicolumn{2}{c}{members} &  \\", r"\cmidrule(lr){3-4}",
        r"mask & share, \% & accurate & approximate & controls, accurate \\", r"\midrule",
    ]  # fmt: skip


def test_latex_of_wide_tables_is_small() -> None:
    sizes = [
        [size in latex_table(Table("", ["a"], [["x" * n]]), "tab:x") for size in ("\\small", "footnote", "script")]
        for n in (55, 60, 70, 75)
    ]
    assert sizes == [[False] * 3, [True, False, False], [False, True, False], [False, False, True]]


def test_latex_of_names_alone_that_are_too_wide_has_them_all() -> None:
    text = latex_table(Table("", ["mask"], [["m" * 80]]), "tab:x")
    assert "m" * 80 in text
    assert text.count(r"\begin{tabular}") == 1


def test_latex_of_what_is_too_wide_is_in_parts() -> None:
    header = ["mask", "method", "members, accurate", "members, approximate", "controls, approximate", "evals"]
    rates = [f"{k}.5 (0–99, of 1000 pictures)" for k in range(3)]
    rows = [[f"mask-{n}", "accelerated", *rates, n] for n in (4, 5)]
    text = latex_table(Table("", header, rows, names=2), "tab:x")
    parts = text.split(r"\begin{tabular}")[1:]
    assert [part.splitlines()[0] for part in parts] == ["{llll}", "{lllr}"]
    first, second, third = (rate.replace("–", "--") for rate in rates)
    assert rf"mask-5 & accelerated & {first} & {second} \\" in parts[0].splitlines()
    assert r"mask & method & controls, approximate & evals \\" in parts[1].splitlines()
    assert rf"mask-5 & accelerated & {third} & 5 \\" in parts[1].splitlines()
    assert text.count(r"\label{tab:x}") == text.count(r"\\[1ex]") == 1

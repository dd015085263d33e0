"""Pieces of HTML for a notebook. All text is escaped: names come from other people's files.

Styles are written in the tags, as notebooks drop style sheets of pages they do not trust; colours are those of the
notebook, light or dark.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

from memrecon_fast.common.text import escaped

SIDE = 72
"""Width of a picture, in pixels of the page."""
_CELL = "padding:2px 8px 2px 0;text-align:left;vertical-align:top"
_NAME = f"{_CELL};font-weight:normal;opacity:.7"
_NUMBER = "padding:2px 8px 2px 0;text-align:right;vertical-align:top;font-variant-numeric:tabular-nums"


def text(value: str) -> str:
    """The text as HTML: what would be a tag is shown as it is, and so is what cannot be seen."""
    return html.escape(escaped(value))


def block(title: str, *pieces: str) -> str:
    """A title, and below it pieces of HTML."""
    return f"<div><strong>{text(title)}</strong>{''.join(pieces)}</div>"


def paragraph(words: str, loud: bool = False) -> str:
    """A sentence; loud: in bold type, for what must not be overlooked."""
    shown = f"<strong>{text(words)}</strong>" if loud else text(words)
    return f'<p style="margin:4px 0;max-width:60em">{shown}</p>'


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    """Names, and what is said of each."""
    rows = "".join(
        f'<tr><th style="{_NAME}">{text(name)}</th><td style="{_CELL}">{text(said)}</td></tr>' for name, said in pairs
    )
    return f'<table style="margin:4px 0">{rows}</table>'


def table(headings: Sequence[str], rows: Iterable[Sequence[str]], numbers: Sequence[bool]) -> str:
    """A table of texts; numbers: which columns hold numbers, which stand to the right."""
    styles = [_NUMBER if number else _CELL for number in numbers]
    head = _cells("th", headings, styles)
    body = "".join(f"<tr>{_cells('td', row, styles)}</tr>" for row in rows)
    return f'<table style="margin:4px 0"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def strip(columns: Sequence[Sequence[str]], names: Sequence[str], captions: Sequence[Sequence[str]]) -> str:
    """Pictures: a column for each image, a row for each of `names`.

    columns: for each image the addresses of its pictures, "" where there is none. captions: for each image the lines
    below it.
    """
    rows = []
    for number, name in enumerate(names):
        cells = "".join(f'<td style="{_CELL}">{_picture(column[number], name)}</td>' for column in columns)
        rows.append(f'<tr><th style="{_NAME}">{text(name)}</th>{cells}</tr>')
    below = "".join(f'<td style="{_CELL};font-size:80%">{"<br>".join(map(text, lines))}</td>' for lines in captions)
    rows.append(f"<tr><th></th>{below}</tr>")
    return f'<div style="overflow-x:auto"><table style="margin:4px 0">{"".join(rows)}</table></div>'


def _cells(tag: str, texts: Sequence[str], styles: Sequence[str]) -> str:
    pairs = zip(texts, styles, strict=True)
    return "".join(f'<{tag} style="{style}">{text(one)}</{tag}>' for one, style in pairs)


def _picture(address: str, name: str) -> str:
    if not address:
        return "–"
    size = f"box-sizing:content-box;width:{SIDE}px;max-width:none;height:auto;margin:0"
    style = f"display:block;{size};border:1px solid rgba(128,128,128,.5);image-rendering:pixelated"
    return f'<img src="{text(address)}" alt="{text(name)}" width="{SIDE}" style="{style}">'

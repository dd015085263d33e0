"""The project's docstrings as Markdown: a paragraph "name: what it is" about each argument becomes a list."""

from __future__ import annotations

import re
from typing import Any

import griffe

_ABOUT = re.compile(r"(?P<names>\*{0,2}\w+(?:, \w+)*): (?P<text>.*)")


class Arguments(griffe.Extension):
    """Changes the docstrings of functions and classes before they are rendered."""

    def on_function(self, *, func: griffe.Function, **_: Any) -> None:
        """Of a function: its parameters."""
        if func.docstring:
            func.docstring.value = as_list(func.docstring.value, {one.name for one in func.parameters})

    def on_class(self, *, cls: griffe.Class, **_: Any) -> None:
        """Of a class: those of its `__init__`, or its fields."""
        if cls.docstring:
            init = cls.members.get("__init__")
            parameters = init.parameters if isinstance(init, griffe.Function) else ()
            cls.docstring.value = as_list(cls.docstring.value, {one.name for one in parameters} | set(cls.members))


def as_list(docstring: str, names: set[str]) -> str:
    """The docstring, in which each line that begins with some of `names` and a colon begins an entry of a list; what
    stands before that on the same line ("low ≥ 1; name: …") stays as it is."""
    lines: list[str] = []
    inside = False  # an entry of the list
    for line in docstring.splitlines():
        about = _ABOUT.fullmatch(line)
        if about and names.issuperset(name.lstrip("*") for name in about["names"].split(", ")):
            if not inside and lines and lines[-1]:
                lines.append("")
            written = ", ".join(f"`{name}`" for name in about["names"].split(", "))
            lines.append(f"- {written}: {about['text']}")
            inside = True
            continue
        if inside and line and not line.startswith(" "):
            lines.append("")
        inside = inside and line.startswith(" ")
        lines.append(line)
    return "\n".join(lines)

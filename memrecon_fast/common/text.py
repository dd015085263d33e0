"""Text for people: names from other people's files, and streams that cannot encode every letter."""

from __future__ import annotations

import codecs
import sys
from collections.abc import Sequence

_SIMPLER = {
    "≤": "<=", "≥": ">=", "–": "-", "−": "-", "…": "...", "×": "x", "·": "*", "→": "->", "²": "^2", "γ": "gamma",
    "σ": "sigma", "ξ": "xi", "‖": "||", "█": "#", "━": "-", "─": "-", "⁻": "^-", "≈": "~", "’": "'",
}  # fmt: skip
_HANDLER = "memrecon_fast.simpler"


def escaped(text: str) -> str:
    """The text with what cannot be seen, or steers a terminal or the direction of writing, as \\n, \\x1b or \\u202e."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else one.encode("unicode_escape", "surrogatepass").decode() for one in text)


def counted(count: int, what: str) -> str:
    """So many of something, in words: 1 image, 2 images."""
    return f"{count} {what}{'' if count == 1 else 's'}"


def listed(words: Sequence[str]) -> str:
    """At least one word, as in a sentence: "a", "a and b", "a, b and c"."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def print_every_letter() -> None:
    """Make stdout and stderr write what their encoding lacks in a simpler way: "<=" for ≤, or "?"."""
    codecs.register_error(_HANDLER, _simpler)
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)  # where they were replaced, what replaces them may have none
        if reconfigure is not None:
            reconfigure(errors=_HANDLER)


def _simpler(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(_SIMPLER.get(one, "?") for one in error.object[error.start : error.end]), error.end

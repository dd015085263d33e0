"""Checks of arguments: they raise TypeError or ValueError, naming the value and what was expected."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterable, Sequence


def check_number(
    name: str, value: object, *, low: float, high: float = sys.float_info.max, low_is_allowed: bool = True
) -> None:
    """Raise unless `value` is a finite real number in [low, high], or in (low, high]."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number, not {value!r}")
    if not low <= value <= high or (value == low and not low_is_allowed):
        least = f"{'at least' if low_is_allowed else 'above'} {low:g}"
        most = "" if high == sys.float_info.max else f" and at most {high:g}"
        raise ValueError(f"{name} must be finite and {least}{most}, not {value!r}")


def check_seed(seed: object) -> None:
    """Raise unless `seed` is an integer that fits in 64 bits."""
    check_integer("seed", seed, low=0, high=2**64 - 1)


def check_integer(name: str, value: object, *, low: int, high: int | None = None) -> None:
    """Raise unless `value` is an integer in [low, high]."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an integer, not {value!r}")
    if value < low or (high is not None and value > high):
        raise ValueError(
            f"{name} must be at least {low}{'' if high is None else f' and at most {high}'}, not {value!r}"
        )


def check_choice(name: str, value: object, choices: Sequence[str]) -> None:
    """Raise unless `value` is one of `choices`."""
    if value not in choices:
        raise ValueError(
            f"{name} must be one of {', '.join(map(repr, choices))}, not {value!r}{suggestion(value, choices)}"
        )


def suggestion(value: object, choices: Iterable[str]) -> str:
    """For the end of a message: which of the choices a misspelt value is meant to be; "" where none is near."""
    lower = {choice.lower(): choice for choice in choices}
    near = difflib.get_close_matches(value.lower(), lower, n=1) if isinstance(value, str) else []
    return f"; did you mean {lower[near[0]]!r}?" if near else ""

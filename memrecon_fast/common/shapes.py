"""Of what kinds the content of a JSON file must be."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Protocol

_LARGEST = 2**63 - 1
_NAMES = {dict: "an object", list: "a list", str: "text", bool: "true or false", int: "an integer", float: "a number",
          type(None): "null"}  # fmt: skip


class Shape(Protocol):
    """What a value must be."""

    def fault(self, value: Any, name: str) -> str:
        """What is wrong with the value, in words that call it `name`; "" if nothing is."""


@dataclasses.dataclass(frozen=True, init=False)
class Of:
    """A value of one of these kinds; numbers must be finite, and integers fit in 64 bits."""

    kinds: tuple[type, ...]

    def __init__(self, *kinds: type) -> None:
        object.__setattr__(self, "kinds", kinds)

    def fault(self, value: Any, name: str) -> str:
        """See `Shape`."""
        if type(value) not in self.kinds:
            return f"{name} must be {' or '.join(_NAMES[kind] for kind in self.kinds)}"
        if isinstance(value, (int, float)) and not abs(value) <= _LARGEST:
            return f"{name} is too large a number"
        return ""


@dataclasses.dataclass(frozen=True)
class Fields:
    """An object that has these names, maybe those that are `optional`, and maybe others."""

    fields: Mapping[str, Shape]
    optional: Mapping[str, Shape] = dataclasses.field(default_factory=dict)

    def fault(self, value: Any, name: str) -> str:
        """See `Shape`."""
        if fault := Of(dict).fault(value, name):
            return fault
        if missing := [field for field in self.fields if field not in value]:
            return f"{name} must have {', '.join(missing)}"
        known = {**self.fields, **self.optional}
        faults = (shape.fault(value[field], f"{field} of {name}") for field, shape in known.items() if field in value)
        return next(filter(None, faults), "")


@dataclasses.dataclass(frozen=True)
class Each:
    """An object, each value of which is like this."""

    shape: Shape

    def fault(self, value: Any, name: str) -> str:
        """See `Shape`."""
        if fault := Of(dict).fault(value, name):
            return fault
        return _first_fault(self.shape, {f"{field!r} of {name}": one for field, one in value.items()})


@dataclasses.dataclass(frozen=True)
class Listed:
    """A list, each item of which is like this."""

    shape: Shape

    def fault(self, value: Any, name: str) -> str:
        """See `Shape`."""
        if fault := Of(list).fault(value, name):
            return fault
        return _first_fault(self.shape, {f"item {at} of {name}": one for at, one in enumerate(value)})


def _first_fault(shape: Shape, values: Mapping[str, Any]) -> str:
    return next(filter(None, (shape.fault(one, name) for name, one in values.items())), "")

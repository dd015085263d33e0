"""`audit.json`: what identifies a run, hashes and settings, and when and where it was worked on."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import numpy as np
import PIL
import torch

import memrecon_fast
from memrecon_fast.audit.store.records import RECORDS, Cell
from memrecon_fast.common.files import read_json, write_json
from memrecon_fast.common.shapes import Each, Fields, Listed, Of, Shape
from memrecon_fast.images.listing import MARKER
from memrecon_fast.methods import METHODS, MaskUse, Traits

DESCRIPTION = MARKER
"""The file that says what a run is. A folder that holds it is a run's, and no source of images."""
ERRORS = "reconstruction_error"
"""In it: what the model makes of the images, see `analysis.reconstruction_error`; earlier versions had none."""
TRAITS = "traits"
"""In it: of each method what must be known to show its results, see `methods.Traits`; earlier versions had none."""
_TRAITS: dict[str, Shape] = {"mask": Of(str), "scored": Of(bool), "uses_model": Of(bool)}
_TEXTS = Each(Of(str))
_PLAN: dict[str, Shape] = {
    "model": Of(str), "images": Each(Of(str)), "image_shape": Listed(Of(int)), "masks": _TEXTS,
    "methods": Listed(Of(str)), "settings": Each(Of(int, float, str, bool, list, type(None))),
    "noise_std": Of(int, float), "degraded": Of(bool), "keep_images": Of(int), "device": Of(str),
    "parts": Of(str, type(None)),
}  # fmt: skip
PLACE: dict[str, Shape] = {
    "machine": Fields({"processor": Of(str), "cores": Of(int, type(None)), "threads": Of(int)}),
    "versions": Each(Of(str, type(None))),
    "slots": Of(int, type(None)),
    "workers": Of(int, type(None)),
    "seconds": Of(int, float, type(None)),
}
"""Of a session: where it works, and how long it took."""
_SESSION = Fields(
    {
        **PLACE,
        "recoveries": Of(int, type(None)),
        "execution": Of(type(None), dict),
    },
    optional={"doubts": Listed(Of(str))},
)
_NUMBER = Of(int, float, type(None))
_ERRORS_OF_SPLIT = Fields(
    {"images": Of(int), "mean": _NUMBER, "median": _NUMBER, "above": Of(int), "variance": _NUMBER}
)
ERRORS_SHAPE = Fields({"members": _ERRORS_OF_SPLIT, "hint": Of(dict, type(None))}, {"controls": _ERRORS_OF_SPLIT})
_SHAPE = Fields(
    {
        "id": Of(str),
        "model": Of(str),
        "sources": _TEXTS,
        "counts": Each(Fields({"images": Of(int), "unusable": Of(int)})),
        "kept": Each(Of(int)),
        "plan": Fields(_PLAN),
        "sessions": Listed(_SESSION),
    },
    optional={
        "remarks": Each(Listed(Of(str))),
        ERRORS: ERRORS_SHAPE,
        TRAITS: Each(Fields(_TRAITS)),
    },
)
"""What `audit.json` must have; it may have more."""
_MEANING = {
    "model": "the model's weights or layers or pixel range",
    "images.members": "the members",
    "images.controls": "the controls",
    "parts": "--parts",
    "targets": "the model, or what it learned",
    "truth": "the images to compare with",
}


def session(slots: int | None, workers: int | None) -> dict[str, Any]:
    """Where the work goes on, for JSON; `seconds`, `recoveries` and `execution` are known once it has ended."""
    return {**place(slots, workers), "recoveries": None, "execution": None}


def place(slots: int | None, workers: int | None) -> dict[str, Any]:
    """Where a session works, of any kind of run; `seconds` are known once it has ended."""
    return {
        "machine": machine(),
        "versions": versions(),
        "slots": slots,
        "workers": workers,
        "seconds": None,
    }


def machine() -> dict[str, Any]:
    """The processor, and what of it is used."""
    return {"processor": _processor(), "cores": os.cpu_count(), "threads": torch.get_num_threads()}


def versions() -> dict[str, str]:
    """The versions of all that the last bits of results may depend on."""
    return {
        "memrecon_fast": memrecon_fast.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "pillow": PIL.__version__,
    }


def read_description(run: Path) -> dict[str, Any]:
    """The content of `audit.json`. Raises ValueError for what is no run."""
    path = run / DESCRIPTION
    try:
        description = read_json(path)
    except FileNotFoundError as error:
        raise ValueError(f"{run} is not the folder of a run: there is no {path}") from error
    if fault := _SHAPE.fault(description, "it") or _contradiction(description):
        raise ValueError(f"{path} does not describe a run: {fault}")
    return dict(description)


def _contradiction(description: Mapping[str, Any]) -> str:
    """What its parts, each of the right kind, say that cannot be; "" if nothing is wrong."""
    plan, counts = description["plan"], description["counts"]
    if list(plan["images"]) not in (["members"], ["members", "controls"]) or counts.keys() != plan["images"].keys():
        return "its splits must be members, or members and controls"
    if not plan["masks"] or description["kept"].keys() != plan["masks"].keys():
        return "its masks must be those of which it says how much they keep"
    methods = plan["methods"]
    if not methods or len(set(methods)) < len(methods) or any(set("/\\") & set(name) for name in methods):
        return "its methods must be different names, at least one"
    if len(plan["image_shape"]) != 3 or min(plan["image_shape"]) < 1:
        return "its image_shape must be three sizes"
    if any(not 0 <= count["unusable"] <= count["images"] for count in counts.values()):
        return "its counts of images must not be less than those of unusable ones"
    if not 0 <= plan["noise_std"] <= 1:
        return "its noise_std must lie in [0, 1]"
    if any(not isinstance(plan.get(method, {}), dict) for method in methods):
        return "what it says of a method must be an object"
    traits = description.get(TRAITS, {})
    if traits and traits.keys() != set(methods):
        return "its traits must be those of its methods"
    if any(one["mask"] not in get_args(MaskUse) for one in traits.values()):
        return f"the mask of each of its traits must be one of {', '.join(get_args(MaskUse))}"
    if not re.fullmatch("[0-9a-f]{32}", description["id"]):
        return "its id must be 32 hexadecimal digits"
    return ""


def write_description(run: Path, description: Mapping[str, Any]) -> None:
    """Write `audit.json`, whole or not at all."""
    write_json(run / DESCRIPTION, description)


def traits_of(description: Mapping[str, Any]) -> dict[str, Traits]:
    """Of each method of a run, in their order: what the run recorded, or, where an earlier version made it, what is
    known of the methods here. Raises ValueError where neither is."""
    recorded = description.get(TRAITS, {})
    found = {}
    for name in description["plan"]["methods"]:
        if name not in recorded and name not in METHODS:
            raise ValueError(
                f"the method {name!r} is unknown here, and the run, which an earlier version made, does not record "
                "what it is: import what adds it first"
            )
        known = recorded.get(name)
        found[name] = METHODS[name].traits if known is None else Traits(**{key: known[key] for key in _TRAITS})
    return found


def doubts_of(description: Mapping[str, Any]) -> list[str]:
    """Why the results are in doubt: what its sessions noted of a model that did not answer as it did."""
    return sorted({doubt for session in description["sessions"] for doubt in session.get("doubts", [])})


def parts_of(run: Path, description: Mapping[str, Any]) -> str:
    """Where the part files of a run are: with others' under one address, in a folder of its own."""
    address = description["plan"]["parts"]
    return str(run / RECORDS) if address is None else f"{address.rstrip('/')}/{description['id']}"


def plan_digest(description: Mapping[str, Any]) -> str:
    """SHA-256 of the plan, by which a file of records is known to be of this audit: of this model, these images, masks
    and settings. Which methods there are beside one, what is kept, and where the parts are, changes no record."""
    besides = ("methods", "keep_images", "parts")
    plan = {name: value for name, value in description["plan"].items() if name not in besides}
    return digest_of(plan)


def digest_of(plan: Mapping[str, Any]) -> str:
    """SHA-256 of values for JSON, whatever their order."""
    return hashlib.sha256(json.dumps(plan, sort_keys=True).encode()).hexdigest()


def cells_of(description: Mapping[str, Any]) -> list[Cell]:
    """The cells of a run."""
    plan = description["plan"]
    return [
        Cell(split, mask, method) for method in plan["methods"] for mask in plan["masks"] for split in plan["images"]
    ]


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """In words, what differs between the plans of two runs."""
    flat_before, flat_now = (_flatten(plan) for plan in (before, now))
    found = []
    for name in {**flat_before, **flat_now}:
        old, new = flat_before.get(name), flat_now.get(name)
        if old == new:
            continue
        if name in _MEANING and None not in (old, new):
            found.append(f"{_MEANING[name]} ({old} then, {new} now)" if name == "parts" else _MEANING[name])
        elif name.startswith("masks.") and None not in (old, new):
            found.append(f"the mask {name.removeprefix('masks.')}")
        else:
            found.append(f"{name.removeprefix('settings.')} ({_short(old)} then, {_short(new)} now)")
    return found


def without_other_methods(plan: Mapping[str, Any]) -> dict[str, Any]:
    """Without what the plan says of methods that it does not have: earlier versions always described "iterate"."""
    return {name: value for name, value in plan.items() if name in _PLAN or name in plan["methods"]}


def _flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The values of nested mappings, by their dotted names."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def _short(value: Any) -> str:
    if value is None:
        return "none"
    return f"{value[:12]}…" if isinstance(value, str) and len(value) == 64 else json.dumps(value)


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()

"""`audit.json`: what identifies a run, hashes and settings, and when and where it was worked on."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torch

import memrecon_fast
from memrecon_fast.audit.store.records import RECORDS, Cell
from memrecon_fast.common.files import write_json
from memrecon_fast.images.listing import MARKER

DESCRIPTION = MARKER
"""The file that says what a run is. A folder that holds it is a run's, and no source of images."""
ERRORS = "reconstruction_error"
"""In it: what the model makes of the images, see `analysis.reconstruction_error`; earlier versions had none."""
_KINDS = {"id": str, "model": str, "sources": dict, "counts": dict, "plan": dict, "sessions": list}
_PLAN = (
    "model", "images", "image_shape", "masks", "methods", "settings", "noise_std", "degraded", "keep_images", "device",
    "parts",
)  # fmt: skip
_MEANING = {
    "model": "the model's weights or layers",
    "images.members": "the members",
    "images.controls": "the controls",
    "parts": "--parts",
}


def session(slots: int | None, workers: int | None) -> dict[str, Any]:
    """Where the work goes on, for JSON; `seconds`, `recoveries` and `execution` are known once it has ended."""
    return {
        "machine": {"processor": _processor(), "cores": os.cpu_count(), "threads": torch.get_num_threads()},
        "versions": versions(),
        "slots": slots,
        "workers": workers,
        "seconds": None,
        "recoveries": None,
        "execution": None,
    }


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
        description = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ValueError(f"{run} is not the folder of a run: there is no {path}") from error
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    if not isinstance(description, dict) or not all(
        isinstance(description.get(key), kind) for key, kind in _KINDS.items()
    ):
        raise ValueError(f"{path} does not describe a run: it must be an object with {', '.join(_KINDS)}")
    if "kept" not in description or not description["plan"].keys() >= set(_PLAN):
        raise ValueError(f"{path} does not describe a run of this version: its plan must have {', '.join(_PLAN)}")
    return description


def write_description(run: Path, description: Mapping[str, Any]) -> None:
    """Write `audit.json`, whole or not at all."""
    write_json(run / DESCRIPTION, description)


def doubts_of(description: Mapping[str, Any]) -> list[str]:
    """Why the results are in doubt: what its sessions noted of a model that did not answer as it did."""
    return sorted({doubt for session in description["sessions"] for doubt in session.get("doubts", [])})


def parts_of(run: Path, description: Mapping[str, Any]) -> str:
    """Where the part files of a run are: with others' under one address, in a folder of its own."""
    address = description["plan"]["parts"]
    return str(run / RECORDS) if address is None else f"{address.rstrip('/')}/{description['id']}"


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

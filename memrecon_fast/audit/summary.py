"""`summary.json`: the rates of a run, from its records alone, with what it was and where it ran."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

import memrecon_fast
from memrecon_fast.audit.methods import ITERATE_MAX_ITERATIONS, ITERATE_TOLERANCE, Solver
from memrecon_fast.audit.records import Cell, Columns, read_records, replacing
from memrecon_fast.audit.run import Audit
from memrecon_fast.audit.statistics import FALSE_POSITIVE_RATES, errors, rate_interval, true_positives_at

SUMMARY = "summary.json"
DESCRIPTION = "run.json"
DESCRIBED = (
    "model", "sources", "images", "image_shape", "masks", "methods", "settings", "iterate", "noise_std", "backend",
    "slots", "machine", "versions", "seconds", "execution",
)  # fmt: skip
"""The keys of `run.json`."""


def describe(audit: Audit, solvers: Mapping[str, Solver], model: str, sources: Mapping[str, str]) -> dict[str, Any]:
    """What is audited, with what and where, for JSON. model, sources: as the user named them."""
    return {
        "model": model,
        "sources": dict(sources),
        "images": {split: len(images) for split, images in audit.splits.items()},
        "image_shape": list(audit.image_shape),
        "masks": list(audit.masks),
        "methods": list(audit.methods),
        "settings": audit.settings.to_dict(),
        "iterate": {"tolerance": ITERATE_TOLERANCE, "max_iterations": ITERATE_MAX_ITERATIONS},
        "noise_std": audit.noise_std,
        "backend": next(iter(solvers.values())).backend,
        "slots": audit.slots,
        "machine": {"processor": _processor(), "cores": os.cpu_count(), "threads": torch.get_num_threads()},
        "versions": {
            "memrecon_fast": memrecon_fast.__version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
        },
        "seconds": None,
        "execution": None,
    }


def write_description(run: Path, description: Mapping[str, Any]) -> None:
    """Write `run.json`, which says what the run is, with "seconds" and "execution" once it is complete."""
    _write_json(run / DESCRIPTION, description)


def summarise(run: Path) -> dict[str, Any]:
    """Make `summary.json` from the records and `run.json`, and return it. Raises ValueError for what is no run."""
    path = run / DESCRIPTION
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ValueError(f"{run} is not the folder of a run: there is no {path}") from error
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    if not isinstance(description, dict) or not description.keys() >= set(DESCRIBED):
        raise ValueError(f"{path} does not describe a run: it must be an object with {', '.join(DESCRIBED)}")
    cells = read_records(run)
    summary = {
        "rows": [summarise_cell(cell, columns) for cell, columns in cells.items()],
        "comparisons": compare_splits(cells),
        **description,
    }
    _write_json(run / SUMMARY, summary)
    return summary


def summarise_cell(cell: Cell, columns: Columns) -> dict[str, Any]:
    """The row of a cell: rates are shares of its images, with 95 % confidence intervals; mean PSNR in dB, of estimates
    clipped to [0, 1]."""
    return {
        **dataclasses.asdict(cell),
        "images": len(columns["index"]),
        **_rate("accurate", columns),
        **_rate("approximate", columns),
        "mean_psnr": float(columns["psnr"].mean()),
        "mean_evaluations": float(columns["evaluations"].mean()),
        "diverged": int(columns["diverged"].sum()),
    }


def compare_splits(cells: Mapping[Cell, Columns]) -> list[dict[str, Any]]:
    """For each mask and method with members and controls: how well the MSE tells them apart."""
    return [
        {
            "mask": cell.mask,
            "method": cell.method,
            "at": [true_positives_at(rate, errors(columns), errors(cells[controls])) for rate in FALSE_POSITIVE_RATES],
        }
        for cell, columns in cells.items()
        if cell.split == "members" and (controls := dataclasses.replace(cell, split="controls")) in cells
    ]


def _rate(verdict: str, columns: Columns) -> dict[str, Any]:
    positive = columns[verdict]
    return {
        f"{verdict}_rate": float(positive.mean()),
        f"{verdict}_interval": list(rate_interval(int(positive.sum()), len(positive))),
    }


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()

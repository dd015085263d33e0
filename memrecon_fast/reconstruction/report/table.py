"""What a reconstruction found, as tables for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich import box
from rich.table import Table

from memrecon_fast.metrics import THRESHOLD_NAMES


def _explained(target: Mapping[str, Any]) -> str:
    if target["certain"]:
        return "not needed"  # the first layer tells all; θ, the change of the last one, is not explained by any inputs
    return "yes" if target["explained"] else "NO"


def make_tables(summary: Mapping[str, Any]) -> Iterator[Table]:
    """A column for each target. summary: of `make_summary`."""
    done = [target for target in summary["targets"] if target["done"]]
    lines = {
        "features p": [f"{one['p']}" for one in done],
        "numbers of an input d": [f"{one['d']}" for one in done],
        "inputs that came out n": [f"{one['found']}" for one in done],
        "p/(n·d)": ["" if one["certain"] else f"{one['p'] / (one['found'] * one['d']):.2f}" for one in done],
        "left of theta": ["" if one["certain"] else f"{one['residual']:.1e}" for one in done],
        "theta explained": [_explained(one) for one in done],
        "successful starts": [f"{one['starts_explained']} of {one['starts_made']}" for one in done],
        "found": [f"{one['verdicts']['found']}" for one in done],
        "likely": [f"{one['verdicts']['likely']}" for one in done],
        "doubtful": [f"{one['verdicts']['doubtful']}" for one in done],
        "signs known": [f"{one['signs_known']}" for one in done],
        "passes over V": [f"{one['passes']:.0f}" for one in done],
        "seconds": [f"{one['seconds']:.1f}" for one in done],
    }
    if summary["truth"] is not None:
        truths = [one["truth"] for one in done]
        lines |= {
            "mean error ρ": [f"{one['error']:.1e}" for one in truths],
            "training images back": [f"{one['recovered']} of {one['images']}" for one in truths],
            f"accurate (MSE < {THRESHOLD_NAMES['accurate']})": [f"{one['accurate']}" for one in truths],
            f"approximate (MSE < {THRESHOLD_NAMES['approximate']})": [f"{one['approximate']}" for one in truths],
        }
    lines = {name: cells for name, cells in lines.items() if any(cells)}
    table = Table(box=box.SIMPLE_HEAD, show_header=len(done) > 1, pad_edge=False)
    table.add_column("", no_wrap=True)
    for one in done:
        table.add_column(one["name"], justify="right", overflow="fold")
    for name, cells in lines.items():
        table.add_row(name, *cells)
    yield table

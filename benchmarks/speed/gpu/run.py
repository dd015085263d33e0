"""All GPU measurements with one command: first whether the results are right, then how fast they come.

    python -m benchmarks gpu             in about eight minutes, on the current CUDA GPU
    python -m benchmarks gpu --quick     a rehearsal: the same lines at tiny sizes without a GPU, to see that they work

A section whose checks fail, or that raises an error, does not end the run: a GPU may be there for half an hour only,
and times tell much beside what is wrong. The report says first what failed. It is printed in brief, see `brief`.

Needs torch 2.11, triton 3.6, numpy and, for the C++ kernels where they are not built yet, setuptools, pybind11 and a
compiler; the package need not be installed. Writes gpu-NAME.json and .md anew after each section, into the folder
--out, that of the environment variable OUT, or else benchmarks/results. Exit status: 0; 1 if a check failed or a
section raised an error; 2 where there is no GPU, or nothing to rehearse with.
"""

from __future__ import annotations

import argparse
import faulthandler
import functools
import json
import os
import re
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.registry import RESULTS, make_parser

if TYPE_CHECKING:
    from benchmarks.speed.gpu.audit import Task
    from benchmarks.speed.gpu.device import Device, Section, Share

WATCHDOG = 30.0
"""So many seconds after its time the run is ended, if it hangs: before a machine that is lent for ten minutes is."""
SECONDS = {"checks": 80, "machine": 10, "bandwidth": 65, "blocks": 130, "audit": 155, "profile": 30}
"""Of the sections, in eight minutes: what one leaves over goes to those after it."""
START = 10.0
"""Seconds of the eight minutes that are for none of them."""


def main(arguments: Sequence[str]) -> int:
    """Run all sections; the exit status."""
    options = _parse(arguments)
    begin = time.perf_counter()
    if options.quick:
        os.environ["TRITON_INTERPRET"] = "1"  # read when triton is imported
    else:
        os.environ.pop("TRITON_INTERPRET", None)
        # a profile after CUDA Graphs were captured: CUPTI must neither be torn down nor come back
        os.environ.setdefault("TEARDOWN_CUPTI", "0")
        os.environ.setdefault("DISABLE_CUPTI_LAZY_REINIT", "1")
    try:
        from benchmarks.speed.gpu.device import Gpu, Rehearsal, why_no_gpu
    except ImportError as error:
        print(f"this benchmark needs torch, triton and numpy: {error}", file=sys.stderr)
        return 2
    why_not = "" if options.quick else why_no_gpu()
    if why_not:
        print(f"{why_not}; --quick runs the same lines without one", file=sys.stderr)
        return 2
    if options.quick:
        from memrecon_fast.ops.launch import why_not_interpreted

        if why_not := why_not_interpreted():
            print(why_not, file=sys.stderr)
            return 2
    else:  # what hangs is ended; what was measured by then is written
        faulthandler.dump_traceback_later(60 * options.minutes + WATCHDOG, exit=True)
    device: Device = Rehearsal() if options.quick else Gpu()
    return _Run(device, options, begin).all_sections()


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = make_parser("gpu", __doc__)
    parser.add_argument("--minutes", type=float, default=8.0, help="the time for everything (8)")
    parser.add_argument("--quick", action="store_true", help="a rehearsal: tiny sizes, no GPU; times mean nothing")
    parser.add_argument(
        "--out", type=Path, help="folder of the results ($OUT; else benchmarks/results; a rehearsal: a new one)"
    )
    parser.add_argument("--trace", type=Path, help="write the profile of float32 here, for chrome://tracing")
    parser.add_argument("--commit", default="", help="what was measured, where there is no git to ask")
    return parser.parse_args(arguments)


def folder_of_results(out: Path | None, rehearsal: bool) -> Path:
    """What was asked for; else a rehearsal has a folder of its own, and what was measured goes to $OUT if it is set."""
    if out is not None:
        return out
    if rehearsal:
        return Path(tempfile.mkdtemp(prefix="gpu-rehearsal-"))
    return Path(os.environ["OUT"]) if os.environ.get("OUT") else RESULTS


class _Run:
    """The sections, one after the other, and the results so far."""

    def __init__(self, device: Device, options: argparse.Namespace, begin: float) -> None:
        from benchmarks.speed.gpu.device import where

        self.device = device
        self.options = options
        self.begin = begin
        self.task: Task | None = None
        self.folder = folder_of_results(options.out, device.rehearsal)
        self.results: dict[str, Any] = {
            "rehearsal": device.rehearsal,
            "where": where(device, options.commit),
            "minutes": options.minutes,
            "finished": False,
            "seconds": 0.0,
            "sections": {},
            "skipped": [],
            "errors": [],
        }

    def all_sections(self) -> int:
        """Run them; the exit status."""
        import torch

        from benchmarks.speed.gpu.brief import brief

        # IEEE float32 for what does not go through the package, too
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
        left = dict(SECONDS)
        for name, section in self._sections().items():
            seconds = (60 * self.options.minutes - START - self._seconds()) * left[name] / sum(left.values())
            del left[name]
            print(f"{name}: at most {seconds:.0f} s", flush=True)
            self._run(name, section, seconds)
            self._write()
            if name == "checks" and not self._checked():
                print("A check failed: what is measured from here on may be no recovery.", flush=True)
        self.results["finished"] = True
        path = self._write()
        print(brief(self.results), end="")
        print(f"{path} and {path.with_suffix('.json').name}, {self._seconds():.0f} s")
        return 1 if self.results["errors"] or not self._checked() else 0

    def _sections(self) -> dict[str, Section]:
        from benchmarks.speed.gpu import audit, blocks, checks, speed

        def measure_blocks(device: Device, share: Share) -> dict[str, Any]:
            speeds = speed.speeds_from(self.results["sections"]["machine"], device)
            return blocks.measure_blocks(device, share, speeds)

        return {
            "checks": checks.run_checks,
            "machine": speed.measure_machine,
            "bandwidth": speed.measure_bandwidth,
            "blocks": measure_blocks,
            "audit": self._with_task(audit.measure_audit),
            "profile": self._with_task(functools.partial(audit.measure_profile, trace=self.options.trace)),
        }

    def _with_task(self, section: Callable[[Device, Share, Task], dict[str, Any]]) -> Section:
        from benchmarks.speed.gpu.audit import make_task

        def run(device: Device, share: Share) -> dict[str, Any]:
            self.task = self.task or make_task(device, share)
            return section(device, share, self.task)

        return run

    def _run(self, name: str, section: Section, seconds: float) -> None:
        """One section; an error in it costs nothing but its own results."""
        from benchmarks.speed.gpu.device import Share

        share, begin = Share(seconds), time.perf_counter()
        try:
            self.results["sections"][name] = section(self.device, share)
            self.results["sections"][name]["seconds"] = time.perf_counter() - begin
        except Exception as error:
            traceback.print_exc()
            self.results["errors"].append(f"{name}: {type(error).__name__}: {error}")
        self.results["skipped"] += share.skipped
        self.device.release()

    def _checked(self) -> bool:
        return bool(self.results["sections"].get("checks", {}).get("passed"))

    def _seconds(self) -> float:
        return time.perf_counter() - self.begin

    def _write(self) -> Path:
        """Both files; that for people is the one that is answered."""
        from benchmarks.speed.gpu.report import render

        self.results["seconds"] = self._seconds()
        self.folder.mkdir(parents=True, exist_ok=True)
        name = re.sub(r"[^a-z0-9]+", "-", self.device.name.lower()).strip("-")
        path = self.folder / f"gpu-{name}.md"
        path.with_suffix(".json").write_text(json.dumps(self.results, indent=1, ensure_ascii=False) + "\n")
        path.write_text(render(self.results))
        return path

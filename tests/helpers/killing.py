"""An audit that is killed at random moments, and continued each time: a process that does so to its children.

python -m tests.helpers.killing KILLS ARGUMENTS…   (the arguments of `memrecon`; --out WHOLE is run undisturbed first,
                                                  then WHOLE-killed)

The children are forked, so that none of them spends its time on imports.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from memrecon_fast import autoencoders, cli
from memrecon_fast.attractors.survey import plan
from memrecon_fast.audit import session  # what a child would import
from memrecon_fast.images import sources

SECONDS_BETWEEN_LOOKS = 0.005
SURVEY_BLOCK_ROWS = 16
"""So that kills fall inside of tables."""
__all__ = ["autoencoders", "session", "sources"]


def main(kills: int, arguments: Sequence[str]) -> None:
    """Print how long the undisturbed run took, and each killed one."""
    torch.set_num_threads(1)
    random.seed(42)
    plan.BLOCK_ROWS["cpu"] = SURVEY_BLOCK_ROWS
    began = time.monotonic()
    code, _ = run(arguments, None)
    seconds = time.monotonic() - began
    print(f"undisturbed: exit code {code}, {seconds:.2f} s", flush=True)
    at = arguments.index("--out") + 1
    again = [*arguments[:at], f"{arguments[at]}-killed", *arguments[at + 1 :]]
    killed = 0
    while killed < kills:
        early = killed % 4 == 3  # while it begins; else while it works: after more was saved
        code, lived = run(again, random.uniform(0, 0.3 if early else 0.1), None if early else Path(again[at]))
        if code is not None:
            print(f"ended by itself after {killed} kills: exit code {code}", flush=True)
            return
        killed += 1
        print(f"killed after {lived:.2f} s", flush=True)
    code, _ = run(again, None)
    print(f"after {killed} kills: exit code {code}", flush=True)


def run(arguments: Sequence[str], seconds: float | None, out: Path | None = None) -> tuple[int | None, float]:
    """The command in a child that is killed after so long; its exit code, None where it was killed, and its life.

    out: the folder of the run: the time counts from when it has another Parquet file than it had.
    """
    before = _parquet_files(out)
    counting = out is None
    began = time.monotonic()
    child = os.fork()
    if not child:
        with open(os.devnull, "w") as nothing, contextlib.redirect_stdout(nothing):
            sys.argv = ["memrecon", *arguments]
            try:
                cli.main()
            except SystemExit as error:
                os._exit(0 if error.code is None else int(error.code))
        os._exit(1)
    while True:
        lived = time.monotonic() - began
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status), lived
        if not counting and _parquet_files(out) - before:
            counting, seconds = True, lived + (seconds or 0)
        if counting and seconds is not None and lived >= seconds:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return None, lived
        time.sleep(SECONDS_BETWEEN_LOOKS)


def _parquet_files(folder: Path | None) -> set[Path]:
    return set(folder.rglob("*.parquet")) if folder else set()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])

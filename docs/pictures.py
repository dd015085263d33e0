"""The pictures of the gallery: all examples are run, with the commands that they name, in a temporary folder.

    python docs/pictures.py

Of an example that draws nothing by itself the picture is of the run that its command made.
"""

from __future__ import annotations

import ast
import contextlib
import os
import runpy
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

EXAMPLES = Path(__file__).parent / "examples"
ORDER = (
    "recover", "audit", "own_mask", "own_method", "degraded", "harvest", "public_data",
    "plain", "batchnorm", "vae", "autoencoder_kl", "lightning_checkpoint", "torchscript",
)  # fmt: skip
"""Each uses what those before it made."""


class SkippedError(RuntimeError):
    """An example said that it cannot run here, and why."""


def run_example(name: str) -> None:
    """Run an example in the current folder, where the scripts are, and then the commands that its docstring names.

    Raises SkippedError where it ends by itself with a message, RuntimeError where a command fails.
    """
    with _called([f"{name}.py"]):
        try:
            runpy.run_path(f"{name}.py", run_name="__main__")
        except SystemExit as ended:
            raise SkippedError(str(ended.code)) from ended
    from memrecon_fast.cli import main

    for command in commands_of(Path(f"{name}.py")):
        with _called(shlex.split(command)):
            try:
                main()
            except SystemExit as ended:
                if ended.code:
                    raise RuntimeError(f"{command}: exit code {ended.code}") from ended


def commands_of(script: Path) -> list[str]:
    """The lines of its docstring that are commands of memrecon."""
    docstring = ast.get_docstring(ast.parse(script.read_text(encoding="utf-8")), clean=False) or ""
    lines = docstring.replace("\\\n", " ").splitlines()
    return [line.strip() for line in lines if line.startswith("    memrecon ")]


@contextlib.contextmanager
def _called(arguments: list[str]) -> Iterator[None]:
    """As a process that was begun with these arguments in this folder: but imports are made once."""
    known = set(sys.modules)
    with mock.patch.object(sys, "argv", arguments), mock.patch.object(sys, "path", [os.getcwd(), *sys.path]):
        try:
            yield
        finally:
            for module in set(sys.modules) - known:  # the scripts import each other, from a folder of their own
                if Path(getattr(sys.modules[module], "__file__", None) or "").parent == Path.cwd():
                    del sys.modules[module]


@contextlib.contextmanager
def _inside(folder: str) -> Iterator[None]:
    before = os.getcwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def draw_run(run: Path, out: Path) -> None:
    """Members of an audit under its first mask: original, degraded, recovered."""
    from matplotlib import pyplot

    import memrecon_fast as mf

    opened = mf.audit.open(run)
    plan = opened.description["plan"]
    pictures = opened.pictures("members", next(iter(plan["masks"])), plan["methods"][0])[:8]
    figure, axes = pyplot.subplots(3, len(pictures), figsize=(1.12 * len(pictures), 3.3), squeeze=False)
    for row, name in zip(axes, ("original", "degraded", "recovered"), strict=True):
        row[0].set_ylabel(name, rotation=0, ha="right", va="center")
        for axis, picture in zip(row, pictures, strict=True):
            axis.imshow(getattr(picture, name).transpose(1, 2, 0))
            axis.set(xticks=[], yticks=[])
    figure.savefig(out, bbox_inches="tight")


def main() -> None:
    """Run all of them, and write the pictures beside the scripts."""
    import matplotlib

    matplotlib.use("Agg")
    with tempfile.TemporaryDirectory() as folder, _inside(folder):
        for script in EXAMPLES.glob("*.py"):
            shutil.copy(script, folder)
        for name in ORDER:
            try:
                run_example(name)
            except SkippedError as skipped:
                print(f"{name}: {skipped}")
                continue
            drawn = Path(f"{name}.png")
            if not drawn.exists():
                draw_run(Path("runs", name), drawn)
            shutil.copy(drawn, EXAMPLES / drawn.name)


if __name__ == "__main__":
    main()

"""What the command shows without torch: the version, help, and the names that it completes, those of the registries."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from memrecon_fast.attractors.starts import KINDS
from memrecon_fast.autoencoders.layers import ACTIVATIONS
from memrecon_fast.autoencoders.presets import PRESETS
from memrecon_fast.autoencoders.recipes import RECIPES
from memrecon_fast.cli import names
from memrecon_fast.degradation import MASKS
from memrecon_fast.methods import DEFAULT_METHODS, METHODS
from memrecon_fast.ops import BACKENDS
from memrecon_fast.settings import INITIAL_MASKS, PRECISIONS, SOLVERS, Settings

WITHOUT = """
import sys
from memrecon_fast.cli import main
try:
    main()
finally:
    print("loaded:", *(name for name in ("torch", "numpy", "pyarrow") if name in sys.modules), file=sys.stderr)
"""


def memrecon(*arguments: str, environment: Mapping[str, str] = {}) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", WITHOUT, *arguments]
    wide = {**os.environ, "COLUMNS": "80", **environment}
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=wide)


def test_names_and_defaults_are_those_of_the_registries() -> None:
    given = (names.METHODS, names.DEFAULT_METHODS, names.MASKS, names.BACKENDS, names.PRECISIONS, names.INITIAL_MASKS)
    assert given == (tuple(METHODS), DEFAULT_METHODS, MASKS, BACKENDS, PRECISIONS, INITIAL_MASKS)
    assert {name: record.gammas for name, record in SOLVERS.items()} == names.GAMMAS
    of_nets = (names.PRESETS, names.ACTIVATIONS, names.OPTIMIZERS, names.KINDS)
    assert of_nets == (PRESETS, ACTIVATIONS, tuple(RECIPES), tuple(KINDS))
    defaults = Settings(
        starts=names.STARTS,
        seed=names.SEED,
        initial_mask=names.INITIAL_MASKS[0],
        max_outer_iterations=names.MAX_OUTER_ITERATIONS,
        precision=names.PRECISIONS[0],
    )
    assert defaults == Settings()


@pytest.mark.parametrize("arguments", [("--version",), ("audit", "--help"), ("audti",)])
def test_what_needs_no_torch_does_without(arguments: tuple[str, ...]) -> None:
    done = memrecon(*arguments)
    assert done.stderr.splitlines()[-1] == "loaded:"
    said = {"--version": "memrecon_fast ", "audit": "╭─ Machine ─", "audti": "Did you mean 'audit'?"}[arguments[0]]
    assert said in done.stdout + done.stderr


def test_help_shows_defaults_and_groups_within_80_columns() -> None:
    lines = memrecon("audit", "--help").stdout.splitlines()
    assert max(map(len, lines)) <= 80
    groups = [line.split()[1] for line in lines if line.startswith("╭─")]
    assert groups == ["Arguments", "Options", "Run", "Model", "Images", "Method", "Machine"]
    text = " ".join(" ".join(lines).replace("│", " ").split())
    assert "(default: accelerated and iterate)" in text


@pytest.mark.parametrize(
    ("written", "completed"),
    [
        ("memrecon ex", ["export"]),
        ("memrecon audit m i --method k", ["known-mask"]),
        ("memrecon audit m i --mask rand", ["random-50", "random-80"]),
        ("memrecon reproduce table", ["table1", "table2"]),
    ],
)
def test_names_are_completed(written: str, completed: list[str]) -> None:
    words = {"COMP_WORDS": written, "COMP_CWORD": str(len(written.split()) - 1)}
    done = memrecon(environment={"_MEMRECON_COMPLETE": "complete_bash", **words})
    assert done.stdout.split() == completed
    assert done.stderr.splitlines()[-1] == "loaded:"


def test_the_package_is_imported_when_it_is_used(tmp_path: Path) -> None:
    code = """
import sys
import memrecon_fast as mf
assert "torch" not in sys.modules
assert "recover" in dir(mf)
assert mf.Settings().gammas == (0.2, 0.5, 1.0)
from memrecon_fast import *
assert recover is mf.recover and metrics is mf.metrics and mf.ops.BACKENDS
try:
    mf.recovr
except AttributeError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert done.stdout == "module 'memrecon_fast' has no attribute 'recovr'\n", done.stderr

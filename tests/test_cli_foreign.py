"""`memrecon audit` with own code that fails, ends the program, or is no function: one line, and nothing is lost."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from memrecon_fast.cli import main
from tests.helpers.memorised import WEIGHTS, Memorised

Audit = Callable[..., "tuple[int, str, str]"]
MODULE = """
import argparse, os, sys, warnings
import torch
from torch import nn
from safetensors.torch import load_file
from tests.helpers.memorised import make_autoencoder

def make():
    net = make_autoencoder()
    net.load_state_dict(load_file(os.environ["MEMRECON_TESTS_WEIGHTS"]))
    return net.eval()

class Own(nn.Module):
    def __init__(self):
        super().__init__()
        self.net, self.calls = make(), 0
    def forward(self, x):
        self.calls += 1
        return self.answer(x)
"""


@pytest.fixture
def audit(tmp_path: Path, memorised: Memorised, monkeypatch: pytest.MonkeyPatch) -> Audit:
    """Runs the command on a module of this code; gives its exit code, and what it wrote."""
    np.save(tmp_path / "members.npy", memorised.members.numpy())

    def run(code: str, *options: str, factory: str = "Own") -> tuple[int, str, str]:
        (tmp_path / "own.py").write_text(MODULE + code)
        fixed = ["--out", "run", "--mask", "center", "--method", "iterate", "--save-every", "0"]
        words = ["memrecon", "audit", f"own.py:{factory}", "members.npy", *fixed, *options]
        stdout, stderr = io.StringIO(), io.StringIO()
        with monkeypatch.context() as patch, contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
            patch.chdir(tmp_path)
            patch.setattr(sys, "argv", words)
            patch.setenv(WEIGHTS, os.environ[WEIGHTS])
            with pytest.raises(SystemExit) as ended:
                main()
        return int(ended.value.code or 0), stdout.getvalue(), stderr.getvalue()

    return run


def only_line(stderr: str) -> str:
    assert stderr.count("\n") == 1, stderr
    assert stderr.startswith("memrecon: ")
    assert "own.py" in stderr
    return stderr


REFUSED = {
    "exit on import": ("sys.exit('no GPU found')", "cannot import own.py: .*no GPU found"),
    "silent exit on import": ("sys.exit(0)", r"cannot import own.py: .*tried to end the program \(SystemExit: 0\)"),
    "arguments on import": (
        "parser = argparse.ArgumentParser(); parser.add_argument('--epochs', required=True); parser.parse_args()",
        "the following arguments are required: --epochs",
    ),
    "exit in the factory": ("Own = lambda: sys.exit(0)", r"calling Own\(\) without arguments failed: .*SystemExit: 0"),
    "own exception": ("class Ended(BaseException): pass\ndef Own(): raise Ended('mine')", "Ended: mine"),
    "warning as error": ("warnings.simplefilter('error'); warnings.warn('deprecated')", "UserWarning: deprecated"),
    "exit in forward": ("Own.answer = lambda self, x: sys.exit(0)", r"autoencoder fails on a batch .*SystemExit: 0"),
    "not implemented": ("del Own.forward", "autoencoder fails on a batch .*NotImplementedError"),
    "lazy": ("Own = lambda: nn.Sequential(nn.LazyConv2d(3, 1))", "is lazy: its parameter 0.weight has no shape yet"),
    "meta": (
        "Own = lambda: nn.Linear(4, 4, device='meta')",
        "builds its model on the device 'meta', where weight has no values",
    ),
    "noise": (
        "Own.answer = lambda self, x: self.net(x) + 1e-3 * torch.randn_like(x)",
        "answers differently to the same images .*dropout",
    ),
    "batch": (
        "Own.answer = lambda self, x: self.net(x - x.mean(0) + x.mean(0).mean())",
        "depends on .*BatchNorm with track_running_stats=False",
    ),
    "no representation": ("def fail(self): raise RuntimeError('unprintable')\nOwn.__repr__ = fail", "unprintable"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_before_work_starts_it_is_refused_in_one_line(audit: Audit, tmp_path: Path, name: str) -> None:
    code, message = REFUSED[name]
    before = sys.argv
    status, _, stderr = audit(code)
    assert status == 2
    assert re.search(message, only_line(stderr)), stderr
    assert not (tmp_path / "run").exists()
    assert sys.argv is before


def test_a_module_does_not_see_the_arguments_of_the_command(audit: Audit) -> None:
    code = "arguments = argparse.ArgumentParser().parse_args(); assert sys.argv == ['own.py'], sys.argv"
    code += "\nOwn.answer = lambda self, x: self.net(x)"
    assert audit(code)[0] == 0


@pytest.mark.parametrize(
    ("failure", "message"),
    [
        ("sys.exit(0)", "RuntimeError: the autoencoder tried to end the program (SystemExit: 0)"),
        ("{}['key']", "KeyError: 'key'"),
        ("torch.ones(2) @ torch.ones(3)", "RuntimeError: inconsistent tensor size"),
    ],
)
def test_during_the_work_what_was_done_is_kept_and_nothing_is_promised(
    audit: Audit, tmp_path: Path, failure: str, message: str
) -> None:
    code = f"Own.answer = lambda self, x: self.net(x) if self.calls < 200 else {failure}"
    status, _, stderr = audit(code, "--slots", "1")
    assert status == 1
    said = only_line(stderr)
    assert f"the model own.py:Own failed: {message}" in said
    assert "memrecon report run shows it, and once it takes these images the same command goes on from there" in said
    assert list((tmp_path / "run/records").iterdir())
    status, stdout, _ = audit("Own.answer = lambda self, x: self.net(x)")
    assert status == 0
    assert "were done before" in stdout


def test_a_model_that_is_random_later(audit: Audit, tmp_path: Path) -> None:
    code = "Own.answer = lambda self, x: self.net(x) + (1e-3 * torch.randn_like(x) if self.calls > 60 else 0)"
    status, stdout, stderr = audit(code)
    assert status == 1
    assert "own.py:Own: the results are in doubt: the autoencoder" in only_line(stderr)
    assert "These results are in doubt" in " ".join(stdout.split())
    assert json.loads((tmp_path / "run/summary.json").read_text())["doubts"]


def test_an_exported_model_with_a_bounded_batch(audit: Audit, tmp_path: Path, memorised: Memorised) -> None:
    batch = torch.export.Dim("batch", max=20)
    exported = torch.export.export(memorised.autoencoder, (memorised.members[:8],), dynamic_shapes=({0: batch},))
    torch.export.save(exported, tmp_path / "own.pt2")
    code = "from memrecon_fast.autoencoders import load\nOwn = lambda: load('own.pt2', trust_model=True)"
    members = memorised.members.repeat(5, 1, 1, 1)
    np.save(tmp_path / "members.npy", (members + torch.linspace(-1e-3, 0, len(members)).view(-1, 1, 1, 1)).clamp(0, 1))
    status, _, stderr = audit(code)
    assert (status, stderr) == (0, "")

"""`memrecon reconstruct`: a model from a file, the demonstration, and what is wrong as one line and exit code 2."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

from memrecon_fast.cli import app
from memrecon_fast.reconstruction import Scaling, save
from memrecon_fast.reconstruction.demo import make_demo
from tests.helpers.features import fitted
from tests.test_cli import one_line

SHAPE = (3, 3, 4)
NET = """
import torch

class Net(torch.nn.Module):
    def __init__(self, units=600):
        super().__init__()
        self.body = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(36, units, bias=False), torch.nn.ReLU())
        self.head = torch.nn.Linear(units, 1, bias=False)

    def forward(self, images):
        return self.head(self.body(images))

def number(): return lambda images: images
"""


NET_FILES = ["nets.py:Net", "--weights", "trained.safetensors", "--initial"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of three pictures, one of vectors, and pictures."""
    folder = tmp_path_factory.mktemp("reconstruct")
    pictures = torch.rand(3, *SHAPE, generator=torch.Generator().manual_seed(5))
    np.save(folder / "members.npy", pictures.numpy())
    np.save(folder / "others.npy", torch.rand(3, 3, 8, 8).numpy())
    model = fitted(3, 36, 648).model
    theta = model.fit(Scaling().inputs_of(pictures), torch.tensor([1.0, -1.0, 1.0]))
    save(model, theta, folder / "pictures.safetensors", SHAPE, Scaling())
    vectors = fitted(2, 20, 400)
    save(vectors.model, vectors.theta, folder / "vectors.safetensors")
    save(vectors.model, vectors.theta * 0, folder / "zero.safetensors")
    (folder / "nets.py").write_text(NET)
    train_head(folder, pictures)
    small = fitted(2, 20, 40)
    save(small.model, small.theta, folder / "small.safetensors")
    return folder


def train_head(folder: Path, pictures: torch.Tensor) -> None:
    """Of the net in nets.py, made after torch.manual_seed(7): the least change of its head that fits the labels."""
    names: dict[str, Any] = {}
    exec(NET, names)
    with torch.random.fork_rng():
        torch.manual_seed(7)
        net = names["Net"]()
    save_file(net.state_dict(), folder / "initial.safetensors")
    with torch.no_grad():
        features = net.body(pictures).double()
        labels = torch.tensor([[1.0], [-1.0], [1.0]]).double()
        change = torch.linalg.lstsq(features, labels - net.head(net.body(pictures)), driver="gelsd").solution
        net.head.weight += change.T
    save_file(net.state_dict(), folder / "trained.safetensors")


def test_a_net_before_and_after_training(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    given = [
        "reconstruct",
        "nets.py:Net",
        "--weights",
        "trained.safetensors",
        "--truth",
        "members.npy",
        "--images",
        "3",
    ]
    for name, initial in (("file", ["--initial", "initial.safetensors"]), ("seed", ["--initial-seed", "7"])):
        command = [*given, *initial, "--starts", "1", "--tolerance", "1e-3", "--out", str(tmp_path / name)]
        result = CliRunner().invoke(app, command)
        assert result.exit_code == 0, result.output
        (target,) = json.loads((tmp_path / name / "summary.json").read_text())["targets"]
        assert target["truth"]["recovered"] == 3
        assert not target["lengths_known"]  # without biases a brighter picture does as well
        assert target["truth"]["approximate"] == 3


def test_a_file_and_the_truth(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    command = ["reconstruct", "pictures.safetensors", "--truth", "members.npy", "--out", str(tmp_path / "run")]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert "3 of 3 training images" in result.output
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["targets"][0]["truth"]["recovered"] == 3
    before = (tmp_path / "run" / "summary.json").read_bytes()
    (tmp_path / "run" / "report.html").unlink()
    assert CliRunner().invoke(app, ["report", str(tmp_path / "run")]).exit_code == 0
    assert (tmp_path / "run" / "report.html").exists()
    assert (tmp_path / "run" / "summary.json").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give MODEL, or --demo"),
        (["pictures.safetensors", "--demo"], "give no MODEL"),
        (["missing.safetensors"], "missing.safetensors"),
        (["members.npy"], "members.npy"),
        (["zero.safetensors"], "theta is 0"),
        (["small.safetensors"], "takes at least 48 features: there are 40"),
        (["pictures.safetensors", "--images", "40"], "takes at least"),
        (["vectors.safetensors", "--shape", "3x4x4"], "of 20 numbers, no pictures of"),
        (["vectors.safetensors", "--shape", "3x4"], "--shape must be"),
        (["pictures.safetensors", "--truth", "others.npy"], "those to compare with are (3, 8, 8)"),
        (["pictures.safetensors", "--mean", "0.5"], "--mean and --std are for --scaling pixels"),
        (["pictures.safetensors", "--scaling", "pixels", "--std", "0"], "above 0"),
        (["pictures.safetensors", "--scaling", "pixel"], "did you mean 'pixels'?"),
        (["pictures.safetensors", "--scaling", "pixels", "--mean", "1,2"], "2 means, and pictures of 3 channels"),
        (["pictures.safetensors", "--tolerance", "0"], "tolerance"),
        (["pictures.safetensors", "--initial", "initial.safetensors"], "are for nets"),
        (["nets.py:Net", "--shape", "3x3x4"], "give --weights"),
        (["nets.py:Net", "--weights", "trained.safetensors", "--shape", "3x3x4"], "give --initial"),
        ([*NET_FILES, "initial.safetensors"], "give --shape"),
        ([*NET_FILES, "trained.safetensors", "--shape", "3x3x4"], "the same"),
        ([*NET_FILES, "initial.safetensors", "--shape", "3x4x4"], "cannot be applied to inputs of shape (3, 4, 4)"),
        ([*NET_FILES, "initial.safetensors", "--shape", "3x3x4", "--head", "haed"], "did you mean 'head'?"),
        ([*NET_FILES, "initial.safetensors", "--shape", "3x3x4", "--arguments", "7"], "must be a JSON object"),
        ([*NET_FILES, "missing.safetensors", "--shape", "3x3x4"], "missing.safetensors"),
        (["nets.py:number", *NET_FILES[1:], "initial.safetensors", "--shape", "3x3x4"], "must make a torch.nn.Module"),
        (["pictures.safetensors", "--resume"], "there is no run to continue"),
    ],
)
def test_what_is_wrong_is_one_line(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(folder)
    result = CliRunner().invoke(app, ["reconstruct", *arguments, "--out", str(tmp_path / "run")])
    assert result.exit_code == 2
    assert message in one_line(result.stderr)
    assert not (tmp_path / "run").exists()


def test_what_is_kept_is_said_only_where_something_is(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = importlib.import_module("memrecon_fast.reconstruction.session")
    real, failing = session.reconstruct, {42: RuntimeError("broken"), 43: RuntimeError("broken")}

    def reconstruct(*arguments: Any) -> Any:
        if arguments[4] in failing:
            raise failing[arguments[4]]
        return real(*arguments)

    monkeypatch.setattr(session, "reconstruct", reconstruct)
    command = ["reconstruct", str(folder / "vectors.safetensors"), "--out", str(tmp_path / "run")]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 1
    assert "no start was made to its end" in one_line(result.stderr)
    assert "memrecon report" not in result.stderr
    del failing[42]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 1
    assert "the same command goes on from there, memrecon report" in one_line(result.stderr)


def test_starts_that_find_nothing_are_one_line(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def reconstruct(*arguments: Any) -> Any:
        raise ValueError("the first layer learned of 9 inputs, which were not found")

    monkeypatch.setattr(importlib.import_module("memrecon_fast.reconstruction.session"), "reconstruct", reconstruct)
    command = ["reconstruct", str(folder / "vectors.safetensors"), "--out", str(tmp_path / "run")]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 2
    assert "which were not found (2 starts made; " in one_line(result.stderr)
    assert "--starts" in result.stderr
    assert "memrecon report" not in result.stderr


def test_the_folder_is_needed(folder: Path) -> None:
    result = CliRunner().invoke(app, ["reconstruct", str(folder / "pictures.safetensors")])
    assert result.exit_code == 2
    assert "--out is missing" in one_line(result.stderr)


def test_the_demonstration_fits_and_looks_for_photographs(tmp_path: Path) -> None:
    """Small; that all of it comes back is what `test_session` says of others."""
    search = make_demo(tmp_path, images=2, size=4, ratios=(1.5, 4.0))
    assert [target.model.p for target in search.targets] == [144, 384]
    assert (tmp_path / "members.npy").exists()
    assert (tmp_path / "model-1.5.safetensors").exists()
    assert search.law is not None
    errors = dict(search.law.training_error)
    assert errors[1] > 0.1
    assert errors[144] < 1e-20

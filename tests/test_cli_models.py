"""`memrecon audit` of models that are given otherwise than as a file of ours."""

from __future__ import annotations

import importlib
import json
import pickle
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner, Result

from memrecon_fast.audit import open_model
from memrecon_fast.audit.plan import model_digest
from memrecon_fast.autoencoders import Adaptation, FullyConnected, adapt
from memrecon_fast.cli import app
from tests.helpers.memorised import Memorised

CODE = """
import torch
from tests.helpers.memorised import make_autoencoder

class Other(torch.nn.Module):
    '''Takes and gives (x - mean)/std, BGR; with what a variational autoencoder returns besides.'''

    def __init__(self, low=0.0, high=1.0, mean=0.0, std=1.0, bgr=False, returns="tensor"):
        super().__init__()
        self.inner = make_autoencoder()
        self.shift, self.scale, self.bgr, self.returns = (mean - low) / (high - low), std / (high - low), bgr, returns

    def forward(self, images):
        x = images * self.scale + self.shift
        y = (self.inner(x.flip(1)).flip(1) if self.bgr else self.inner(x))
        y = (y - self.shift) / self.scale
        code = images.flatten(1)[:, :2]
        return {"tensor": y, "tuple": (y, code, code), "two": {"a": y, "b": 2 * y}}[self.returns]
"""

pytestmark = pytest.mark.usefixtures("of_any_torch")
Audit = Callable[..., Result]


@pytest.fixture
def audit(memorised: Memorised, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Audit:
    """An audit in `tmp_path`, where others.py is, with members.npy and weights.pth."""
    (tmp_path / "others.py").write_text(CODE)
    np.save(tmp_path / "members.npy", memorised.members.numpy())
    state = {f"inner.{name}": value for name, value in memorised.autoencoder.state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "weights.pth")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "others", raising=False)

    def run(*options: object, model: str = "others:Other", weights: str | None = "weights.pth") -> Result:
        words = ["audit", model, "members.npy", "--out", "run", "--mask", "center", "--method", "known-mask", *options]
        words += [] if weights is None else ["--weights", weights]
        return CliRunner().invoke(app, list(map(str, words)))

    return run


def _rate(folder: str) -> float:
    (row,) = json.loads(Path(folder, "summary.json").read_text())["rows"]
    return float(row["approximate_rate"])


def test_a_model_of_other_pixels_and_outputs_is_told_so(audit: Audit) -> None:
    given = ["--arguments", '{"mean": 0.45, "std": 0.225, "bgr": true, "returns": "tuple"}']
    options = ["--mean", "0.45,0.45,0.45", "--std", "0.225", "--channels", "bgr"]
    result = audit(*given, *options)
    assert result.exit_code == 0, result.output
    assert "weights.pth: its state dict 'state_dict' is taken" in result.stderr
    assert "0, the only one of the shape of the images, is taken for the reconstruction" in result.stderr
    assert _rate("run") > 0.5
    said = json.loads(Path("run/audit.json").read_text())["adaptation"]
    assert said == "mean=(0.45, 0.45, 0.45), std=(0.225,), channels='bgr'"
    other = audit(*given, *options, "--pixel-range", "-1,1")
    assert other.exit_code == 2
    assert "differs: the model's weights or layers" in other.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--pixel-range", "1"], "the pixel range must be two numbers"),
        (["--pixel-range", "1,-1"], "the lower first"),
        (["--pixel-range", "a,b"], "--pixel-range must be numbers with commas between"),
        (["--mean", "0.5,nan,0.5"], "mean (each entry) must be finite"),
        (["--mean", "0.5,0.5"], "mean and std are for 2 channels; the images have 3"),
        (["--std", "0"], "std must be finite and above 0"),
        (["--channels", "gbr"], "channels must be one of 'rgb', 'bgr'"),
        (["--output", "sample"], "'sample'"),
        (["--arguments", "width=3"], "--arguments must be a JSON object"),
        (["--arguments", "[3]"], "--arguments must be a JSON object"),
        (["--arguments", "[" * 100_000], "--arguments must be a JSON object"),
        (["--arguments", '{"width": 3}'], "its arguments are low, high, mean, std, bgr, returns"),
        (["--arguments", '{"returns": "two"}'], "a dict of a (16, 3, 8, 8), b (16, 3, 8, 8)"),
    ],
)
def test_what_is_wrong_is_one_line(audit: Audit, options: list[str], message: str) -> None:
    result = audit(*options)
    assert result.exit_code == 2, result.output
    line = result.stderr.splitlines()[-1]
    assert message in line
    assert len(line) < 2000
    assert len([one for one in result.stderr.splitlines() if "weights.pth" not in one]) == 1
    assert not Path("run").exists()


def test_a_program_needs_consent(audit: Audit, memorised: Memorised) -> None:
    """One that takes [-1, 1], and returns a tuple."""
    sys.path.insert(0, "")
    model = importlib.import_module("others").Other(low=-1, returns="two").eval()
    sys.path.pop(0)
    model.inner = memorised.autoencoder
    shapes = ({0: torch.export.Dim("batch")},)
    torch.export.save(torch.export.export(model, (memorised.members,), dynamic_shapes=shapes), "model.pt2")
    options = ("--pixel-range", "-1,1", "--output", "a")
    refused = audit(*options, model="model.pt2", weights=None)
    assert refused.exit_code == 2
    assert refused.stderr.count("\n") == 1
    assert "model.pt2 is refused: a .pt2 file is a program, which can do anything when it is opened" in refused.stderr
    trusted = audit(*options, "--trust-model", model="model.pt2", weights=None)
    assert trusted.exit_code == 0, trusted.output
    assert _rate("run") > 0.5


def test_weights_as_a_model_say_what_they_need(audit: Audit) -> None:
    result = audit(model="weights.pth", weights=None)
    assert result.exit_code == 2
    assert "weights.pth holds weights, " in result.stderr
    assert "this file as its --weights" in result.stderr


def test_what_workers_load_is_the_same_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "wide.py").write_text(
        "from memrecon_fast.autoencoders import FullyConnected\n"
        "def build(width):\n    return FullyConnected((3, 4, 4), width, 2, seed=3)\n"
    )
    monkeypatch.chdir(tmp_path)
    save_file(FullyConnected((3, 4, 4), 5, 2, seed=4).state_dict(), tmp_path / "weights.safetensors")
    adaptation = Adaptation((-1, 1), output=None, channels="bgr")
    model = open_model("wide.py:build", "weights.safetensors", arguments={"width": 5}, adaptation=adaptation)
    loaded = pickle.loads(pickle.dumps(model.load))(torch.device("cpu"))
    assert model_digest(loaded) == model_digest(model.autoencoder)
    expected = adapt(FullyConnected((3, 4, 4), 5, 2, seed=4).eval(), pixel_range=(-1, 1), channels="bgr")
    images = torch.rand(2, 3, 4, 4)
    torch.testing.assert_close(loaded(images), expected(images))


def test_what_would_steer_a_terminal_is_shown_escaped(audit: Audit, tmp_path: Path) -> None:
    tensors = {"w\x1b[2J\u202e": torch.zeros(1)}
    save_file(tensors, tmp_path / "steering.safetensors", {"memrecon_fast.architecture": "\x1b[31m\u202e"})
    for options in ({"model": "steering.safetensors", "weights": None}, {"weights": "steering.safetensors"}):
        result = audit(**options)
        assert result.exit_code == 2
        assert "\\x1b[" in result.stderr
        assert not {"\x1b", "\u202e"} & set(result.stderr)

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from memrecon_fast.autoencoders import load

CODE = """
import dataclasses
import torch
from helpers_of_nets import SIZE

class Net(torch.nn.Module):
    def __init__(self, width):
        super().__init__()
        self.layer = torch.nn.Linear(SIZE, width)

    def forward(self, images):
        return self.layer(images)

    @classmethod
    def small(cls):
        return cls(4)

@dataclasses.dataclass
class Options:
    width: int = 4

def build_network():
    from late_of_nets import WIDTH  # imported when it is called
    return Net(WIDTH)

def takes(width, depth=2):
    return Net(width * depth)

network = Net(4)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With nets/of_mine.py, its two neighbours, and the same in a package."""
    for place in (tmp_path / "nets", tmp_path):
        place.mkdir(exist_ok=True)
        (place / "helpers_of_nets.py").write_text("SIZE = 4")
        (place / "late_of_nets.py").write_text("WIDTH = 4")
    (tmp_path / "nets" / "of_mine.py").write_text(CODE)
    (tmp_path / "nets" / "relative.py").write_text("from . import of_mine")
    monkeypatch.chdir(tmp_path)
    for name in [name for name in sys.modules if name.partition(".")[0] in ("nets", "helpers_of_nets", "late_of_nets")]:
        monkeypatch.delitem(sys.modules, name)
    return tmp_path


@pytest.mark.parametrize(
    "name",
    [
        "nets.of_mine:build_network",
        "nets/of_mine.py:build_network",
        "./nets/of_mine.py:build_network",
        "nets.of_mine:Net.small",
        "nets/of_mine.py:Net.small",
        "nets.of_mine:build_network()",
        "nets.of_mine:network",
        "nets/of_mine.py:network",
    ],
)
def test_a_factory_by_module_or_by_file_a_method_of_a_class_or_a_module_itself(folder: Path, name: str) -> None:
    before = list(sys.path)
    model = load(name)
    assert isinstance(model, nn.Module)
    assert type(model).__name__ == "Net"
    assert not model.training
    assert sys.path == before


def test_an_absolute_path_and_a_name_that_another_module_has(folder: Path) -> None:
    (folder / "torch.py").write_text((folder / "nets" / "of_mine.py").read_text())
    assert type(load(f"{folder}/nets/of_mine.py:build_network")).__name__ == "Net"
    assert type(load("torch.py:build_network")).__name__ == "Net"
    assert sys.modules["torch"] is torch


@pytest.mark.parametrize(
    ("name", "arguments", "features"),
    [("nets.of_mine:Net", {"width": 3}, 3), ("nets.of_mine:takes", {"width": 2, "depth": 3}, 6)],
)
def test_arguments_are_handed_on(folder: Path, name: str, arguments: dict[str, Any], features: int) -> None:
    model = load(name, arguments=arguments)
    assert model(torch.rand(2, 4)).shape == (2, features)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("nets.of_mine:Net", None, r"""give --arguments '{"width": …}', or a function"""),
        ("nets.of_mine:takes", {"depth": 1}, r"""calling takes\(\) with depth=1 failed: .*'{"width": …}'"""),
        ("nets.of_mine:takes", {"widht": 1, "width": 2}, "its arguments are width, depth"),
        ("nets.of_mine:build_network", {"width": 1}, "its arguments are none"),
        ("nets.of_mine:network", {"width": 1}, "is a Net, no function: it takes no arguments"),
        ("nets.of_mine:build_netwrok", None, "has no function build_netwrok; did you mean build_network?"),
        ("nets.of_mine:Net.smal", None, "has no function Net.smal; did you mean small?"),
        ("nets/of_mine:build_network", None, r"no file nets/of_mine; there is nets/of_mine.py: nets/of_mine.py:"),
        ("nets/of_yours.py:build", None, r"no file nets/of_yours.py; expected package.module:function \(nets.of_yours"),
        ("of_yours.py:build", None, "no file of_yours.py; expected"),
        ("nets/relative.py:build", None, "relative import.*; a module of a package is named package.module:function"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_factory_is_said(
    folder: Path, name: str, arguments: dict[str, Any] | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        load(name, arguments=arguments)


def test_a_factory_named_with_a_dot_is_understood() -> None:
    with pytest.raises(FileNotFoundError, match=r"a factory is named package.models:build; a model is"):
        load("package.models.build")


@pytest.mark.parametrize("given", [{}, {"weights": "plain.pth"}, {"arguments": {"width": 3}}])
def test_a_factory_of_a_module_that_is_there_is_named_before_a_file_of_nearly_this_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: dict[str, Any]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nets").mkdir()
    for name in ("plain.py", "plain.pth", "nets/plain.py", "model.safetensors"):
        (tmp_path / name).write_text("0")
    for name, meant in {
        "plain.Net": "plain:Net",
        "./plain.Net": "plain:Net",
        "nets.plain.Net": "nets.plain:Net",
        "nets/plain.Net": "nets/plain.py:Net",
        "plain": "plain:function",
    }.items():
        with pytest.raises(FileNotFoundError, match=f"no model file .*; a factory is named {meant}; a model is"):
            load(name, **given)
    with pytest.raises(FileNotFoundError, match=r"; there is model.safetensors; a model is"):
        load("model.safetenors", **given)
    with pytest.raises(ValueError, match=r"plain.py is code: plain.py:function calls a function of it"):
        load("plain.py", **given)


def test_arguments_are_for_factories(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    with pytest.raises(ValueError, match="arguments are for a factory"):
        load(tmp_path / "model.safetensors", arguments={"width": 3})


def test_an_exported_program_of_a_factory_has_no_modes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "exporting.py").write_text(
        "import torch\n"
        "def build():\n"
        "    net = torch.nn.Linear(4, 4).eval()\n"
        "    shapes = ({0: torch.export.Dim('b')},)\n"
        "    return torch.export.export(net, (torch.rand(2, 4),), dynamic_shapes=shapes).module()\n"
    )
    assert load("exporting.py:build")(torch.rand(3, 4)).shape == (3, 4)

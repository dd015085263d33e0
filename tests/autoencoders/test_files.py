from __future__ import annotations

import json
import os
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from memrecon_fast.autoencoders import ARCHITECTURES, FullyConnected, UNet, load, save
from memrecon_fast.autoencoders.files import describe

FACTORY = """
import torch

def linear():
    return torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Dropout())

def plain():
    return lambda images: images

def nothing():
    return None

def needs(size):
    return size

def fails():
    return {}["key"]

size = 3
"""


@pytest.fixture
def factory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "models_of_mine.py").write_text(FACTORY)
    (tmp_path / "broken_of_mine.py").write_text("1 / 0")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "models_of_mine", raising=False)
    return "models_of_mine"


@pytest.mark.parametrize(
    "model",
    [
        FullyConnected((3, 4, 4), 6, 3, "prelu", seed=1),
        UNet((3, 4, 4), (4, 5), "softplus", "lower", seed=1),
        UNet((1, 8, 4), (4, 5, 6), "prelu", "all", seed=1),
    ],
)
def test_a_model_comes_back_as_it_was(model: FullyConnected | UNet, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save(model, path)
    loaded = load(path)
    assert isinstance(loaded, FullyConnected if isinstance(model, FullyConnected) else UNet)
    assert not loaded.training
    assert loaded.arguments() == model.arguments()
    images = torch.rand(4, *model.image_shape)
    with torch.inference_mode():
        assert torch.equal(loaded(images), model.eval()(images))
    assert [file.name for file in tmp_path.iterdir()] == ["model.safetensors"]


def test_the_metadata_name_the_architecture(tmp_path: Path) -> None:
    save(UNet((3, 4, 4), (4, 5)), tmp_path / "model.safetensors")
    with safe_open(tmp_path / "model.safetensors", framework="pt") as file:
        assert json.loads(file.metadata()["memrecon_fast.architecture"]) == {
            "name": "UNet",
            "arguments": {"image_shape": [3, 4, 4], "widths": [4, 5], "activation": "leaky_relu", "skips": "none"},
        }


def test_a_failed_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.safetensors"
    save(FullyConnected((1, 2, 2), 3, 2), path)
    before = path.read_bytes()

    def fail(descriptor: int) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="no space left"):
        save(FullyConnected((1, 2, 2), 4, 2), path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["model.safetensors"]


def test_save_refuses_what_load_could_not_read(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"only FullyConnected and UNet and Tied can be saved, not Linear"):
        save(nn.Linear(2, 2), tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"saved as .safetensors files, not 'model.pt'"):
        save(FullyConnected((1, 2, 2), 3, 2), tmp_path / "model.pt")
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        save(FullyConnected((1, 2, 2), 3, 2), tmp_path / "missing" / "model.safetensors")


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".pkl", ".bin", ".ckpt", ".PT"])
def test_pickled_files_are_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"model{suffix}"
    torch.save(FullyConnected((1, 2, 2), 3, 2), path)
    with pytest.raises(ValueError, match=r"is refused: .* (unpickling runs|can run) .*safetensors.torch.save_file"):
        load(path)


def test_a_pickle_under_another_name_is_not_unpickled(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    torch.save({"weight": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match="cannot be read as a safetensors file"):
        load(path)


def test_missing_corrupt_and_foreign_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"there is no model file .*nowhere.safetensors"):
        load(tmp_path / "nowhere.safetensors")
    path = tmp_path / "model.safetensors"
    save(FullyConnected((1, 2, 2), 3, 2), path)
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(ValueError, match=r"model.safetensors cannot be read as a safetensors file"):
        load(path)
    save_file({"weight": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match=r"does not say what architecture .* package.module:factory"):
        load(path)


_BUILT = '{"name": "FullyConnected", "arguments": {"image_shape": [1, 2, 2], "width": %s, "depth": %s}}'
_UNET = '{"name": "UNet", "arguments": {"image_shape": [1, 2, 2], "widths": %s}}'


@pytest.mark.parametrize(
    ("description", "message"),
    [
        ("no json", "cannot be built by this version: no json"),
        ("[" * 100_000, "RecursionError|cannot be built"),
        ("[]", "TypeError"),
        ("null", "TypeError"),
        ('{"name": ["FullyConnected"], "arguments": {}}', "TypeError"),
        ('{"name": "FullyConnected"}', "KeyError"),
        ('{"name": "FullyConnected", "arguments": []}', "TypeError"),
        ('{"name": "FullyConnected", "arguments": null}', "TypeError"),
        ('{"name": "FullyConnected", "arguments": {"x": 1}}', "TypeError"),
        ('{"name": "FullyConnected", "name": "UNet", "arguments": {}}', "a name is there twice"),
        (_BUILT % ("true", 2), "width must be an integer, not True"),
        (_BUILT % ('"3"', 2), "width must be an integer"),
        (_BUILT % ("3.0", 2), "width must be an integer"),
        (_BUILT % ("1e999", 2), "width must be an integer"),
        (_BUILT % ("NaN", 2), "width must be an integer"),
        (_BUILT % (3, "9" * 5000), "cannot be built"),
        (_BUILT % (3, "9" * 400), "cannot be built"),
        (_BUILT % (3, '["x"]'), "depth must be an integer"),
        (_BUILT % (3, 3), "do not fit"),
        (_BUILT % (3, 10**7), "do not fit"),
        (_BUILT % (20_000, 2), "do not fit"),
        (_BUILT % (10**12, 10**12), "do not fit"),
        (_UNET % "[1, 20000]", "do not fit"),
        (_UNET % "[1, 1e9]", "widths must be an integer"),
        (_UNET % f"[{'1, ' * 20_000}1]", "divisible|cannot be built"),
        (_UNET % '"ab"', "widths must be an integer"),
        ('{"name": "Transformer", "arguments": {}}', "cannot be built"),
        ('{"name": "FullyConnected", "arguments": {"image_shape": [1, 2, 2], "width": -1, "depth": 2}}', "width"),
        ('{"name": "FullyConnected", "arguments": {"image_shape": [1, 2, 2], "width": 9, "depth": 2}}', "do not fit"),
    ],
)
def test_metadata_that_do_not_fit_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, description: str, message: str
) -> None:
    path = tmp_path / "model.safetensors"
    tensors = FullyConnected((1, 2, 2), 3, 2).state_dict()
    save_file(tensors, path, {"memrecon_fast.architecture": description})
    monkeypatch.setattr("memrecon_fast.autoencoders.layers.skip_init", None)  # no layer is made of what does not fit
    with pytest.raises(ValueError, match=message) as caught:
        load(path)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    "model",
    [
        FullyConnected((1, 3, 2), 5, 4, "prelu"),
        FullyConnected((3, 2, 2), 1, 2),
        UNet((3, 4, 4), (4, 5, 6), "prelu", "all"),
        UNet((1, 4, 4), (4, 5, 6), "softplus", "lower"),
        UNet((2, 4, 4), (1, 3)),
    ],
)
def test_the_shapes_of_an_architecture_are_those_of_its_tensors(model: FullyConnected | UNet) -> None:
    shapes = ARCHITECTURES[type(model).__name__].shapes
    assert shapes is not None
    expected = Counter(tuple(tensor.shape) for tensor in model.state_dict().values())
    assert Counter(shapes(**model.arguments())) == expected


def test_a_suffix_in_capitals_is_the_same_suffix(tmp_path: Path) -> None:
    save(FullyConnected((1, 2, 2), 3, 2), tmp_path / "model.safetensors")
    renamed = (tmp_path / "model.safetensors").rename(tmp_path / "MODEL.SAFETENSORS")
    assert isinstance(load(renamed), FullyConnected)


def test_what_is_no_model_is_named_with_what_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save(FullyConnected((1, 2, 2), 3, 2), tmp_path / "model.safetensors")
    os.mkfifo("pipe.safetensors")
    Path("hub").mkdir()
    Path("hub/config.json").write_text("{}")
    Path("plain").mkdir()
    Path("empty.safetensors").touch()
    Path("pointer.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n")
    Path("page.pth").write_text("<!DOCTYPE html><html>not found</html>")
    Path("net.onnx").write_bytes(b"onnx")
    Path("net.H5").write_bytes(b"keras")
    Path("net.gguf").write_bytes(b"GGUF")
    Path("net.py").write_text("x = 1")
    Path("noise.safetensors").write_bytes(b"\xff" * 100)
    for name, message in {
        "modle.safetensors": r"there is no model file modle.safetensors; there is model.safetensors; a model is",
        "missing/model.safetensors": "there is no model file .*no folder missing",
        "pipe.safetensors": "a named pipe",
        "hub": "a folder of Hugging Face; a factory loads it: .*from_pretrained",
        "plain": "plain is a folder; a model is",
        "empty.safetensors": "is empty",
        "pointer.safetensors": "is a Git LFS pointer",
        "page.pth": "is a web page",
        "net.onnx": "is a model of ONNX; a model is a .safetensors file",
        "net.H5": "is a model of Keras",
        "net.gguf": "is a model of GGUF",
        "net.py": "net.py is code: net.py:function calls a function of it",
        "noise.safetensors": "cannot be read as a safetensors file",
    }.items():
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            load(name)


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    model = FullyConnected((1, 2, 2), 3, 2)
    model.state_dict()["layers.0.weight"][0, 0] = torch.nan
    save(model, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="hold NaN or infinity"):
        load(tmp_path / "model.safetensors")


def test_a_factory_of_the_working_directory_with_weights(factory: str, tmp_path: Path) -> None:
    weights = {"0.weight": torch.rand(4, 4), "0.bias": torch.rand(4)}
    save_file(weights, tmp_path / "weights.safetensors")
    model = load(f"{factory}:linear", weights="weights.safetensors")
    assert isinstance(model, nn.Module)
    assert not model.training
    assert torch.equal(model.state_dict()["0.weight"], weights["0.weight"])
    assert str(tmp_path) not in sys.path


def test_a_factory_may_return_any_callable(factory: str) -> None:
    images = torch.rand(2, 3)
    assert torch.equal(load(f"{factory}:plain")(images), images)


@pytest.mark.parametrize(
    ("name", "weights", "message"),
    [
        ("nowhere_to_be_found:linear", None, "cannot import nowhere_to_be_found from"),
        ("models_of_mine:missing", None, "has no function missing"),
        ("models_of_mine:size", None, "has no function size"),
        ("models_of_mine:needs", None, r"calling needs\(\) without arguments failed"),
        ("models_of_mine:fails", None, r"calling fails\(\) without arguments failed: KeyError: 'key'"),
        ("broken_of_mine:make", None, "cannot import broken_of_mine .* ZeroDivisionError"),
        ("models_of_mine:nothing", None, "returned a NoneType; expected a callable"),
        ("models_of_mine:plain", "weights.safetensors", "no torch.nn.Module: it takes no weights"),
        ("models_of_mine:linear", "weights.safetensors", "do not fit the model of models_of_mine:linear"),
        ("models_of_mine:linear", "weights.pt", "is refused: .*(unpickling runs|can run) "),
    ],
)
def test_factories_that_fail_are_named(
    factory: str, tmp_path: Path, name: str, weights: str | None, message: str
) -> None:
    save_file({"1.weight": torch.rand(4, 4)}, tmp_path / "weights.safetensors")
    torch.save(FullyConnected((1, 2, 2), 3, 2), tmp_path / "weights.pt")  # a whole model, pickled
    with pytest.raises(ValueError, match=message):
        load(name, weights=weights)


def test_weights_are_for_factories(factory: str, tmp_path: Path) -> None:
    save(FullyConnected((1, 2, 2), 3, 2), tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="weights are for a factory"):
        load("model.safetensors", weights="model.safetensors")
    with pytest.raises(FileNotFoundError, match=r"there is no model file missing.safetensors"):
        load(f"{factory}:linear", weights="missing.safetensors")


def test_without_safetensors_the_error_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    arguments: Any = (FullyConnected((1, 2, 2), 3, 2), tmp_path / "model.safetensors")
    with pytest.raises(ImportError, match=r"pip install 'memrecon-fast\[audit\]'"):
        save(*arguments)


@pytest.mark.parametrize("change", [lambda tensor: (tensor * 100).long(), None])
def test_integers_and_other_names_are_no_weights(tmp_path: Path, change: Any) -> None:
    path = tmp_path / "model.safetensors"
    model = FullyConnected((1, 2, 2), 3, 2)
    tensors = {
        (name if change else f"x.{name}"): (change or torch.clone)(value) for name, value in model.state_dict().items()
    }
    save_file(tensors, path, {"memrecon_fast.architecture": json.dumps(describe(model))})
    with pytest.raises(ValueError, match="do not fit the architecture in its metadata: it has 4 others, for instance"):
        load(path)


def test_a_header_of_any_kind_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    tensor = '{"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}'
    for header in (
        '{"a": ' * 100_000,
        "[" * 100_000,
        f'{{"a": {tensor}, "a": {tensor}}}',
        '{"a": {"dtype": "F32", "shape": [1000000000000, 1000000000000], "data_offsets": [0, 4]}}',
        '{"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}',
        '{"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}}',
        '{"__metadata__": {"memrecon_fast.architecture": 3}}',
        '{"__metadata__": []}',
        "null",
    ):
        content = header.encode()
        path.write_bytes(len(content).to_bytes(8, "little") + content + bytes(4))
        with pytest.raises(ValueError, match=r"model.safetensors (cannot be read|does not say)") as caught:
            load(path)
        assert len(str(caught.value).splitlines()) == 1
        assert len(str(caught.value)) < 1000
    for length in (2**63, 2**64 - 1, 10**8 + 1, 10**12):
        path.write_bytes(length.to_bytes(8, "little") + b"{}")
        with pytest.raises(ValueError, match=r"model.safetensors cannot be read"):
            load(path)

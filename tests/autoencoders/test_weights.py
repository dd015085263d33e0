from __future__ import annotations

import argparse
import copy
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file, save_model
from torch import Tensor, nn

from memrecon_fast.autoencoders import adapt
from memrecon_fast.autoencoders.tensors import SAFE_SINCE, read_state_dicts
from memrecon_fast.autoencoders.weights import load_weights

pytestmark = pytest.mark.usefixtures("of_any_torch")
State = dict[str, Tensor]


class Net(nn.Module):
    """Two layers, of which the second may have the weight of the first; with a norm and a mask of infinities."""

    def __init__(self, tied: bool = False) -> None:
        super().__init__()
        self.a, self.b, self.norm = nn.Linear(4, 4), nn.Linear(4, 4), nn.BatchNorm1d(4)
        self.register_buffer("hidden", torch.full((2,), -torch.inf))
        if tied:
            self.b.weight = self.a.weight

    def forward(self, images: Tensor) -> Tensor:
        return self.norm(self.b(self.a(images)))  # type: ignore[no-any-return]


class Compiled(nn.Module):
    """As `torch.compile` keeps a module, in so far as it concerns names."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self._orig_mod = model


@pytest.fixture
def trained() -> Net:
    torch.manual_seed(5)
    return Net()


def _same(model: nn.Module, other: nn.Module) -> bool:
    images = torch.rand(3, 4)
    return torch.equal(model.eval()(images), other.eval()(images))


def _state(trained: Net) -> State:
    return trained.state_dict()


PREFIXES = ("module.", "model.", "net.", "autoencoder.", "module.model.", "_orig_mod.")
_OPTIMIZER = {"state": {0: {"step": torch.tensor(1.0), "exp_avg": torch.zeros(4)}}, "param_groups": [{"lr": 0.1}]}


@pytest.mark.parametrize("suffix", ["safetensors", "SAFETENSORS", "pth", "pt", "bin", "PTH", "weights", "pth.tar"])
def test_a_state_dict_is_data(trained: Net, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"weights.{suffix}"
    if suffix.lower() == "safetensors":
        save_file(trained.state_dict(), path)
    else:
        torch.save(trained.state_dict(), path)
    model = Net()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_weights(model, path, "Net")
    assert _same(model, trained)


def test_what_a_file_is_its_content_says(trained: Net, tmp_path: Path) -> None:
    save_file(trained.state_dict(), tmp_path / "safe.bin")
    torch.save(trained.state_dict(), tmp_path / "saved.safetensors")
    for name in ("safe.bin", "saved.safetensors"):
        model = Net()
        load_weights(model, tmp_path / name, "Net")
        assert _same(model, trained)


def test_the_older_format_of_torch_is_read(trained: Net, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save(trained.state_dict(), path, _use_new_zipfile_serialization=False)
    model = Net()
    load_weights(model, path, "Net")
    assert _same(model, trained)


@pytest.mark.parametrize(
    ("checkpoint", "said"),
    [
        (lambda state: {"state_dict": state, "epoch": 3, "optimizer": _OPTIMIZER}, "'state_dict' is taken"),
        (lambda state: {"model_state_dict": state, "loss": torch.tensor(1.0)}, "'model_state_dict' is taken"),
        (lambda state: {"model": state, "optim": _OPTIMIZER, "args": None}, "'model' is taken"),
        (lambda state: {"a": {"ema": state}}, "'a.ema' is taken"),
        (lambda state: {"generator": state, "discriminator": {"x": torch.zeros(2)}}, "'generator' is taken"),
        (lambda state: {"state_dict": {f"model.{name}": value for name, value in state.items()}},
         "'state_dict' is taken, 'model.' was taken off the names"),
        (lambda state: {**{f"model.{name}": value for name, value in state.items()}, "loss.w": torch.zeros(3)},
         r"1 others are left out \(loss.w\)"),
    ],
)  # fmt: skip
def test_what_is_taken_of_a_checkpoint_is_said(
    trained: Net, tmp_path: Path, checkpoint: Callable[[State], Any], said: str
) -> None:
    path = tmp_path / "last.ckpt"
    torch.save(checkpoint(trained.state_dict()), path)
    model = Net()
    with pytest.warns(RuntimeWarning, match=f"last.ckpt: .*{said}"):
        load_weights(model, path, "Net")
    assert _same(model, trained)


@pytest.mark.parametrize("prefix", PREFIXES)
def test_a_prefix_that_all_names_share_is_taken_off(trained: Net, tmp_path: Path, prefix: str) -> None:
    path = tmp_path / "weights.safetensors"
    save_file({f"{prefix}{name}": value for name, value in trained.state_dict().items()}, path)
    model = Net()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        load_weights(model, path, "Net")
    assert _same(model, trained)
    said = [str(one.message) for one in caught if one.category is RuntimeWarning]
    # what torch.compile adds is no choice of anyone's
    assert said == ([] if prefix == "_orig_mod." else [f"{path}: {prefix!r} was taken off the names"])


@pytest.mark.parametrize("wrap", [Compiled, nn.DataParallel, lambda model: adapt(model, pixel_range=(-1, 1))])
def test_a_prefix_that_the_model_has_is_put_in_front(trained: Net, tmp_path: Path, wrap: Any) -> None:
    path = tmp_path / "weights.safetensors"
    save_file(trained.state_dict(), path)
    inner = Net()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        load_weights(wrap(inner), path, "Net")
    assert _same(inner, trained)


def test_what_fits_twice_is_to_be_chosen(trained: Net, tmp_path: Path) -> None:
    other = copy.deepcopy(trained)
    nn.init.zeros_(other.a.weight)
    path = tmp_path / "last.ckpt"
    torch.save({"model": trained.state_dict(), "ema": other.state_dict()}, path)
    with pytest.raises(
        ValueError, match=r"do not fit Net in one way alone, but as model, ema; choose one as FILE:NAME"
    ):
        load_weights(Net(), path, "Net")
    for name, expected in {"model": trained, "ema": other}.items():
        model = Net()
        with pytest.warns(RuntimeWarning, match=f"'{name}' is taken"):
            load_weights(model, f"{path}:{name}", "Net")
        assert _same(model, expected)
    with pytest.raises(ValueError, match=r"no state dict 'nothing' .*; it has model, ema"):
        load_weights(Net(), f"{path}:nothing", "Net")

    both = tmp_path / "both.safetensors"
    states = [("net", trained.state_dict()), ("ema_net", other.state_dict())]
    save_file({f"{prefix}.{name}": value for prefix, state in states for name, value in state.items()}, both)
    with pytest.raises(ValueError, match="in one way alone, but as ema_net, net;"):
        load_weights(Net(), both, "Net")
    model = Net()
    load_weights(model, f"{both}:ema_net", "Net")
    assert _same(model, other)


def test_what_is_named_of_several_can_be_chosen(trained: Net, tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    state = {f"module.{name}": value for name, value in trained.state_dict().items()}
    torch.save({"model": state, "ema": {name: value * 0 for name, value in state.items()}}, path)
    with pytest.raises(ValueError, match=r"in one way alone, but as model.module, ema.module; choose one"):
        load_weights(Net(), path, "Net")
    for name in ("model", "model.module"):
        model = Net()
        with pytest.warns(RuntimeWarning, match="'model' is taken"):
            load_weights(model, f"{path}:{name}", "Net")
        assert _same(model, trained)


@pytest.mark.parametrize("kind", [torch.int64, torch.int8, torch.uint8, torch.complex64])
def test_integers_are_no_weights(tmp_path: Path, kind: torch.dtype) -> None:
    path = tmp_path / "quantised.pth"
    torch.save({name: (value * 10).to(kind) for name, value in nn.Linear(4, 4).state_dict().items()}, path)
    name = str(kind).removeprefix("torch.")
    with pytest.raises(ValueError, match=rf"2 are of another shape or kind \(bias \(4,\) {name} for \(4,\) float32"):
        load_weights(nn.Linear(4, 4), path, "Net")


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_floating_point_weights_are_taken_as_float32(trained: Net, tmp_path: Path, kind: torch.dtype) -> None:
    path = tmp_path / "weights.pth"
    torch.save(
        {name: value.to(kind) if "num" not in name else value for name, value in trained.state_dict().items()}, path
    )
    model = Net()
    load_weights(model, path, "Net")
    assert model.a.weight.dtype == torch.float32
    torch.testing.assert_close(model.a.weight, trained.a.weight, rtol=0.01, atol=0.01)


def test_tied_weights_are_there_once(tmp_path: Path) -> None:
    trained = Net(tied=True)
    path = tmp_path / "tied.safetensors"
    save_model(trained, str(path))
    model = Net(tied=True)
    load_weights(model, path, "Net")
    assert _same(model, trained)
    with pytest.raises(ValueError, match=r"1 of 10 tensors of the model are missing \(\w.weight\)"):
        load_weights(Net(), path, "Net")


def test_the_length_of_a_header_is_no_pickle(trained: Net, tmp_path: Path) -> None:
    """It comes first, and may be 0x480: a pickle begins so."""
    path = tmp_path / "weights.of_mine"
    for length in range(8, 800, 8):
        save_file(trained.state_dict(), path, {"padding": "x" * length})
        if path.read_bytes()[:1] == b"\x80":
            break
    assert path.read_bytes()[:2] in (b"\x80\x03", b"\x80\x04", b"\x80\x05")
    model = Net()
    load_weights(model, path, "Net")
    assert _same(model, trained)


def test_counters_that_older_files_have_not_are_not_missed(trained: Net, tmp_path: Path) -> None:
    state = {name: value for name, value in trained.state_dict().items() if "num_batches" not in name}
    save_file(state, tmp_path / "old.safetensors")
    model = Net()
    load_weights(model, tmp_path / "old.safetensors", "Net")
    assert _same(model, trained)


def test_lazy_modules_and_modules_that_rename(trained: Net, tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_file(nn.Linear(4, 3).state_dict(), path)
    lazy = nn.LazyLinear(3)
    load_weights(lazy, path, "Net")
    assert lazy.weight.shape == (3, 4)

    class Renaming(nn.Linear):
        def _load_from_state_dict(self, state_dict: State, prefix: str, *rest: Any) -> None:
            state_dict[f"{prefix}weight"] = state_dict.pop(f"{prefix}kernel")
            super()._load_from_state_dict(state_dict, prefix, *rest)

    save_file({"kernel": torch.ones(3, 4), "bias": torch.ones(3)}, path)
    renaming = Renaming(4, 3)
    load_weights(renaming, path, "Net")
    assert torch.equal(renaming.weight, torch.ones(3, 4))


def test_a_misfit_is_told_in_numbers_and_a_few_names(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    wide = nn.Sequential(*[nn.Linear(4, 5 if i == 1 else 4) for i in range(50)])
    save_file({name.replace("49", "x"): value for name, value in wide.state_dict().items()}, path)
    with pytest.raises(ValueError, match="do not fit Net") as caught:
        load_weights(nn.Sequential(*[nn.Linear(4, 4) for _ in range(50)]), path, "Net")
    message = str(caught.value)
    assert "2 of 100 tensors of the model are missing (49.weight, 49.bias)" in message
    assert "2 of 100 in the file are not of the model (x.bias, x.weight)" in message
    assert (
        "2 are of another shape or kind (1.bias (5,) float32 for (4,) float32, 1.weight (5, 4) float32 for" in message
    )
    assert len(message) < 500
    save_file({f"net.{name}": torch.zeros(2) for name in ("a.weight", "a.bias", "c")}, path)
    with pytest.raises(ValueError, match=r"without 'net.' in front, 7 of 10 .* missing .* 1 of 3 in the file .* \(c\)"):
        load_weights(Net(), path, "Net")
    torch.save({"one": {"x": torch.zeros(1)}, "two": {"y": torch.zeros(1)}}, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match=r"do not fit Net: one: .*; two: "):
        load_weights(Net(), tmp_path / "weights.pth", "Net")


def test_a_checkpoint_that_holds_itself_many_times_is_looked_through_once(trained: Net, tmp_path: Path) -> None:
    shared: dict[str, Any] = {"w": torch.zeros(1)}
    for _ in range(3):
        shared = {str(i): shared for i in range(1000)}  # a thousand million ways to the same tensor
    torch.save({"model": trained.state_dict(), "again": trained.state_dict(), "many": shared}, tmp_path / "many.pth")
    assert sorted(read_state_dicts(tmp_path / "many.pth")) == ["again", "model"]


class Trap:
    """Unpickled, it leaves a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("trusted", [False, True])
@pytest.mark.parametrize("zipped", [False, True])
def test_nothing_but_tensors_is_unpickled(trained: Net, tmp_path: Path, trusted: bool, zipped: bool) -> None:
    path, sprung = tmp_path / "weights.pth", tmp_path / "sprung"
    content = {"state_dict": trained.state_dict(), "trap": Trap(sprung)}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match=r"is refused: it holds more than tensors .*safetensors.torch.save_file"):
        load_weights(Net(), path, "Net", trusted=trusted)
    assert not sprung.exists()
    torch.save({"state_dict": trained.state_dict(), "options": argparse.Namespace(width=3)}, path)
    with pytest.raises(ValueError, match=r"holds more than tensors \(argparse.Namespace\)") as caught:
        load_weights(Net(), path, "Net")
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_what_holds_no_weights_is_named(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    for content, message in (
        ({}, "holds no state dict, .* but a dictionary with nothing"),
        ({"epoch": 3, "lr": 0.1}, "but a dictionary with epoch, lr"),
        ([torch.zeros(2)], "but a list"),
        (torch.zeros(2), "but a Tensor"),
        ({0: torch.zeros(2)}, "but a dictionary with 0"),
    ):
        torch.save(content, path)
        with pytest.raises(ValueError, match=message):
            load_weights(Net(), path, "Net")
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), path)
    with pytest.raises(ValueError, match="is TorchScript"):
        load_weights(Net(), path, "Net")
    for damaged in (b"PK\x03\x04 and then nothing", b"\x80\x02 and then nothing", b"nothing at all"):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"is refused: it is damaged, or no file of torch.save") as caught:
            load_weights(Net(), path, "Net")
        assert len(str(caught.value).splitlines()) == 1
    program = torch.export.export(nn.Linear(2, 2), (torch.zeros(2, 2),))
    torch.export.save(program, tmp_path / "program.pt2")
    with pytest.raises(ValueError, match=r"holds no weights alone; it is a torch.export archive"):
        load_weights(Net(), tmp_path / "program.pt2", "Net")
    with pytest.raises(FileNotFoundError, match="there is no model file"):
        load_weights(Net(), tmp_path / "missing.pth:model", "Net")


def test_a_torch_that_such_files_deceive_reads_none(
    trained: Net, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "weights.pth"
    torch.save(trained.state_dict(), path)
    assert SAFE_SINCE == (2, 10)
    monkeypatch.setattr("memrecon_fast.autoencoders.tensors.SAFE_SINCE", SAFE_SINCE)
    monkeypatch.setattr(torch, "__version__", "2.9.1+cu128")
    with pytest.raises(ValueError, match=r"can run code when torch 2.9.1\+cu128 opens it.*2.10 or newer"):
        load_weights(Net(), path, "Net")
    load_weights(Net(), path, "Net", trusted=True)


def test_tensors_that_pretend_to_be_large_are_refused(tmp_path: Path) -> None:
    torch.save({"a.weight": torch.zeros(1).expand(10**6, 10**6)}, tmp_path / "large.pth")
    with pytest.raises(ValueError, match=r"a.weight \(1000000, 1000000\) has more entries than it stores"):
        load_weights(nn.LazyLinear(4), tmp_path / "large.pth", "Net")


def test_sparse_tensors_are_no_weights(tmp_path: Path) -> None:
    huge = torch.sparse_coo_tensor(torch.zeros(2, 0, dtype=torch.int64), torch.zeros(0), (10**6, 10**6))
    torch.save({"weight": huge, "bias": torch.zeros(4)}, tmp_path / "sparse.pth")
    with pytest.raises(ValueError, match="1 are of another shape or kind"):
        load_weights(nn.LazyLinear(4), tmp_path / "sparse.pth", "Net")


def test_weights_that_are_not_finite_are_refused_but_masks_of_infinities_are_not(trained: Net, tmp_path: Path) -> None:
    state = trained.state_dict()
    for name, value in (("a.bias", torch.inf), ("a.bias", torch.nan), ("hidden", torch.nan)):
        changed = {key: tensor.clone() for key, tensor in state.items()}
        changed[name][0] = value
        save_file(changed, tmp_path / "weights.safetensors")
        with pytest.raises(ValueError, match="hold NaN or infinity"):
            load_weights(Net(), tmp_path / "weights.safetensors", "Net")

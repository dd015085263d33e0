from __future__ import annotations

import contextlib
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from memrecon_fast.audit import open_model
from memrecon_fast.autoencoders import Adaptation, FullyConnected, UNet, load
from memrecon_fast.autoencoders.contents import PROGRAM
from memrecon_fast.cli.texts import TRUST_HELP

SHAPE = (3, 4, 4)
BATCH = torch.export.Dim("batch", min=1, max=4096)


def _export(model: torch.nn.Module, path: Path, dynamic: bool = True) -> None:
    shapes = ({0: BATCH},) if dynamic else None
    torch.export.save(torch.export.export(model.eval(), (torch.rand(2, *SHAPE),), dynamic_shapes=shapes), path)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("exported") / "model.pt2"
    _export(FullyConnected(SHAPE, 6, 3), path)
    return path


@pytest.mark.parametrize("model", [FullyConnected(SHAPE, 6, 3, "prelu"), UNet(SHAPE, (4, 5), skips="all")])
@pytest.mark.parametrize("batch", [1, 4, 7])
def test_an_exported_model_answers_for_any_batch(model: torch.nn.Module, batch: int, tmp_path: Path) -> None:
    _export(model, tmp_path / "model.pt2")
    images = torch.rand(batch, *SHAPE)
    before = images.clone()
    with torch.inference_mode():
        output = load(tmp_path / "model.pt2", trust_model=True)(images)
        torch.testing.assert_close(output, model(images))
    assert torch.equal(images, before)


def test_a_fixed_batch_is_refused(tmp_path: Path) -> None:
    _export(FullyConnected(SHAPE, 6, 3), tmp_path / "model.pt2", dynamic=False)
    with pytest.raises(ValueError, match=r"shape \(2, 3, 4, 4\) only; the batch dimension must be dynamic"):
        load(tmp_path / "model.pt2", trust_model=True)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_other_files_are_refused(tmp_path: Path, exported: Path) -> None:
    path = tmp_path / "model.pt2"
    path.write_bytes(b"no archive")
    with pytest.raises(ValueError, match=r"model.pt2 is not a torch.export archive"):
        load(path, trust_model=True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("hello", "world")
    with pytest.raises(ValueError, match=r"model.pt2 is not a torch.export archive; it is another archive"):
        load(path, trust_model=True)
    path.write_bytes(exported.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"model.pt2 is not a torch.export archive; .* not whole"):
        load(path, trust_model=True)
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), path)
    with pytest.raises(ValueError, match=r"it is TorchScript; export the model again with torch.export"):
        load(path, trust_model=True)
    torch.save(nn.Linear(2, 2).state_dict(), path)
    with pytest.raises(ValueError, match=r"it is what torch.save wrote; .*--weights to a package.module:factory"):
        load(path, trust_model=True)


@pytest.fixture
def edited(tmp_path: Path, exported: Path) -> Callable[..., Path]:
    """Of an archive a copy, with other members in the place of those that end so, or in addition."""

    def edit(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
        path = tmp_path / "edited.pt2"
        with zipfile.ZipFile(exported) as old, zipfile.ZipFile(path, "w", compression) as new:
            names = old.namelist()
            for name in names:
                new.writestr(name, next((members[end] for end in members if name.endswith(end)), old.read(name)))
            for end in members:
                if not any(name.endswith(end) for name in names):
                    new.writestr(f"{names[0].split('/')[0]}/{end}", members[end])
        return path

    return edit


@pytest.fixture
def edited_inside(edited: Callable[..., Path], exported: Path) -> Callable[..., Path]:
    """The same for members that describe the program: a torch of another age gives them other names."""
    with zipfile.ZipFile(exported) as archive:
        if not any(name.endswith("models/model.json") for name in archive.namelist()):
            pytest.skip(f"torch {torch.__version__} writes .pt2 files in another form")
    return edited


class Trap:
    """Unpickled, it leaves a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


def test_a_program_is_not_opened_without_consent(edited_inside: Callable[..., Path], tmp_path: Path) -> None:
    """A trap where torch unpickles: it springs when the file is opened, and not before."""
    sprung = tmp_path / "sprung"
    entry = {"path_name": "opaque_obj_0", "is_param": False, "use_pickle": True, "tensor_meta": None}
    config = json.dumps({"config": {"trap": entry}}).encode()
    trap = pickle.dumps(Trap(sprung))
    path = edited_inside({"model_constants_config.json": config, "data/constants/opaque_obj_0": trap})
    for _ in range(2):
        path = path.rename(path.with_suffix(path.suffix.swapcase()))  # in capitals, and back
        with pytest.raises(ValueError, match=r"is refused: a .pt2 file is a program, .*--trust-model, or trust_model="):
            load(path)
        with pytest.raises(ValueError, match=r"is refused: a .pt2 file is a program"):
            open_model(path)
    assert not sprung.exists()
    with contextlib.suppress(ValueError):
        load(path, trust_model=True)
    assert sprung.exists()  # so the trap was one


def test_the_same_words_are_said_wherever_a_person_looks() -> None:
    root = Path(__file__).parents[2]
    assert PROGRAM in TRUST_HELP
    for name in ("docs/guides/own-model.md", "SECURITY.md"):
        assert PROGRAM.replace(".pt2", "`.pt2`") in " ".join((root / name).read_text(encoding="utf-8").split())


def test_what_would_not_fit_into_memory_is_not_unpacked(
    edited: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = edited({"data/weights/weight_0": bytes(50_000_000)}, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 200_000
    monkeypatch.setattr("memrecon_fast.autoencoders.contents.available_memory", lambda: 40_000_000)
    monkeypatch.setattr(torch.export, "load", None)
    with pytest.raises(ValueError, match=r"edited.pt2 holds 50 MB; 40 MB of memory are free"):
        load(path, trust_model=True)


def test_a_program_under_another_name_is_a_program_too(exported: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(exported.read_bytes())
    with pytest.raises(ValueError, match=r"model.pt is refused: a .pt2 file is a program"):
        load(path)
    assert load(path, trust_model=True)(torch.rand(3, *SHAPE)).shape == (3, *SHAPE)


def test_half_precision_is_named(tmp_path: Path) -> None:
    half = torch.export.export(
        FullyConnected(SHAPE, 6, 3).eval().half(), (torch.rand(2, *SHAPE).half(),), dynamic_shapes=({0: BATCH},)
    )
    torch.export.save(half, tmp_path / "half.pt2")
    with pytest.raises(
        ValueError, match=r"half.pt2 was exported in float16; .*model.float\(\) before torch.export.export"
    ):
        load(tmp_path / "half.pt2", trust_model=True)


def test_what_torch_says_of_a_damaged_program_is_one_line(
    edited_inside: Callable[..., Path], capfd: pytest.CaptureFixture[str]
) -> None:
    path = edited_inside({"models/model.json": b"{}"})
    with pytest.raises(ValueError, match=r"edited.pt2 cannot be loaded by torch.export of torch .*: \w+") as caught:
        load(path, trust_model=True)
    assert "warnings above" not in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert capfd.readouterr().err == ""


def test_an_exported_program_is_adapted_too(exported: Path) -> None:
    images = torch.rand(3, *SHAPE)
    model = load(exported, trust_model=True, adaptation=Adaptation(pixel_range=(-1, 1)))
    plain = load(exported, trust_model=True)
    torch.testing.assert_close(model(images), (plain(images * 2 - 1) + 1) / 2)

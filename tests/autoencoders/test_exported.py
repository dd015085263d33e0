from __future__ import annotations

import io
import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from memrecon_fast.autoencoders import FullyConnected, UNet, load

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


def _edited(source: Path, target: Path, changes: dict[str, bytes]) -> Path:
    """A copy of the archive with the members that end like the keys replaced."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            replaced = [content for end, content in changes.items() if name.endswith(end)]
            new.writestr(name, replaced[0] if replaced else old.read(name))
    return target


@pytest.mark.parametrize("model", [FullyConnected(SHAPE, 6, 3, "prelu"), UNet(SHAPE, (4, 5), skips="all")])
@pytest.mark.parametrize("batch", [1, 4, 7])
def test_an_exported_model_answers_for_any_batch(model: torch.nn.Module, batch: int, tmp_path: Path) -> None:
    _export(model, tmp_path / "model.pt2")
    images = torch.rand(batch, *SHAPE)
    before = images.clone()
    with torch.inference_mode():
        output = load(tmp_path / "model.pt2")(images)
        torch.testing.assert_close(output, model(images))
    assert torch.equal(images, before)


def test_a_fixed_batch_is_refused(tmp_path: Path) -> None:
    _export(FullyConnected(SHAPE, 6, 3), tmp_path / "model.pt2", dynamic=False)
    with pytest.raises(ValueError, match=r"shape \(2, 3, 4, 4\) only; the batch dimension must be dynamic"):
        load(tmp_path / "model.pt2")


def test_other_files_are_refused(tmp_path: Path, exported: Path) -> None:
    path = tmp_path / "model.pt2"
    path.write_bytes(b"no archive")
    with pytest.raises(ValueError, match=r"model.pt2 is not a torch.export archive"):
        load(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("hello", "world")
    with pytest.raises(ValueError, match=r"model.pt2 cannot be loaded by torch.export"):
        load(path)
    path.write_bytes(exported.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"model.pt2"):
        load(path)


class Trap:
    """Unpickled, it leaves a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


def test_code_in_the_example_inputs_is_refused_and_not_run(tmp_path: Path, exported: Path) -> None:
    sprung = tmp_path / "sprung"
    buffer = io.BytesIO()
    torch.save(Trap(sprung), buffer)
    path = _edited(exported, tmp_path / "model.pt2", {"data/sample_inputs/model.pt": buffer.getvalue()})
    with pytest.raises(ValueError, match=r"is refused: .* holds more than tensors"):
        load(path)
    assert not sprung.exists()


@pytest.mark.parametrize("folder", ["weights", "constants"])
@pytest.mark.parametrize("name", ["opaque_obj_0", "custom_obj_0", "weight_99", "tensor_99"])
def test_pickled_weights_and_constants_are_refused_and_not_run(
    tmp_path: Path, exported: Path, folder: str, name: str
) -> None:
    sprung = tmp_path / "sprung"
    entry = {"path_name": name, "is_param": False, "use_pickle": True, "tensor_meta": None}
    config = json.dumps({"config": {"trap": entry}}).encode()
    path = _edited(exported, tmp_path / "model.pt2", {f"model_{folder}_config.json": config})
    with zipfile.ZipFile(path, "a") as archive:
        root = archive.namelist()[0].split("/")[0]
        archive.writestr(f"{root}/data/{folder}/{name}", pickle.dumps(Trap(sprung)))
    with pytest.raises(ValueError, match=f"is refused: .*{folder}_config.json asks for unpickling"):
        load(path)
    assert not sprung.exists()


def test_compiled_code_and_doubled_members_are_refused(tmp_path: Path, exported: Path) -> None:
    path = _edited(exported, tmp_path / "model.pt2", {})
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("model/data/aotinductor/model/model.so", b"")
    with pytest.raises(ValueError, match="is refused: it holds compiled machine code"):
        load(path)
    path = _edited(exported, tmp_path / "model.pt2", {})
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr(archive.namelist()[0], b"")
    with pytest.raises(ValueError, match="two members of the same name"):
        load(path)

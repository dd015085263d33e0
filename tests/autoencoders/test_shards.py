"""Weights in several files, as Hugging Face keeps large ones."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from memrecon_fast.autoencoders.weights import load_weights

pytestmark = pytest.mark.usefixtures("of_any_torch")
PARTS = ("model-00001-of-00002", "model-00002-of-00002")


def make_net() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 4))


def save(
    folder: Path, parts: Mapping[str, Mapping[str, Tensor]], listed: Any = None, suffix: str = ".safetensors"
) -> Path:
    """The parts as files, and their index."""
    for name, tensors in parts.items():
        save_file(dict(tensors), folder / f"{name}{suffix}") if suffix == ".safetensors" else torch.save(
            dict(tensors), folder / f"{name}{suffix}"
        )
    listed = listed or {key: f"{name}{suffix}" for name, tensors in parts.items() for key in tensors}
    index = folder / f"model{suffix}.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": listed}))
    return index


def in_parts(state: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    names = list(state)
    return {PARTS[0]: {key: state[key] for key in names[:1]}, PARTS[1]: {key: state[key] for key in names[1:]}}


@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
def test_an_index_stands_for_all_its_files(tmp_path: Path, suffix: str) -> None:
    trained, model = make_net(), make_net()
    index = save(tmp_path, in_parts(trained.state_dict()), suffix=suffix)
    load_weights(model, index, "Net")
    assert all(torch.equal(value, trained.state_dict()[key]) for key, value in model.state_dict().items())
    inside = {f"encoder.{key}": value for key, value in trained.state_dict().items()}
    index = save(tmp_path, in_parts(inside | {"head.weight": torch.zeros(2)}), suffix=suffix)
    model = make_net()
    with pytest.warns(RuntimeWarning, match=r"'encoder\.' was taken off the names, 1 others are left out"):
        load_weights(model, index, "Net")
    assert all(torch.equal(value, trained.state_dict()[key]) for key, value in model.state_dict().items())


def test_one_file_of_several_is_not_taken_for_all(tmp_path: Path) -> None:
    index = save(tmp_path, in_parts(make_net().state_dict()))
    shard = tmp_path / f"{PARTS[1]}.safetensors"
    with pytest.raises(ValueError, match=r"is part 2 of 2: give the index model\.safetensors\.index\.json$"):
        load_weights(make_net(), shard, "Net")
    index.unlink()
    with pytest.raises(ValueError, match=r"all of them are needed, .* the index model\.safetensors\.index\.json$"):
        load_weights(make_net(), shard, "Net")
    with pytest.raises(FileNotFoundError, match=r"there is no file .*model\.safetensors\.index\.json"):
        load_weights(make_net(), index, "Net")
    alone = tmp_path / "model-00001-of-00001.safetensors"
    save_file(make_net().state_dict(), alone)
    load_weights(make_net(), alone, "Net")


def test_a_file_that_is_missing_or_says_something_else_than_the_index_is_refused(tmp_path: Path) -> None:
    parts = in_parts(make_net().state_dict())
    index = save(tmp_path, parts)
    first, second = (tmp_path / f"{name}.safetensors" for name in PARTS)
    save_file(parts[PARTS[1]] | parts[PARTS[0]], second)
    with pytest.raises(ValueError, match=r"0\.weight is in model-00002-of-00002\.safetensors and in another file"):
        load_weights(make_net(), index, "Net")
    some = dict(parts[PARTS[1]])
    some.pop("1.bias")
    save_file(some, second)
    with pytest.raises(
        ValueError, match=r"and model-00002-of-00002\.safetensors do not agree on 1 tensors, .* 1\.bias"
    ):
        load_weights(make_net(), index, "Net")
    save_file(parts[PARTS[1]] | {"more": torch.zeros(1)}, second)
    with pytest.raises(ValueError, match=r"do not agree on 1 tensors, for instance more"):
        load_weights(make_net(), index, "Net")
    first.unlink()
    with pytest.raises(FileNotFoundError, match=r"there is no model file .*model-00001-of-00002\.safetensors"):
        load_weights(make_net(), index, "Net")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "it has no weight_map"),
        ('{"weight_map": {}}', "it has no weight_map"),
        ('{"weight_map": ["a"]}', "it has no weight_map"),
        (
            '{"weight_map": {"a": "../model-00001-of-00002.safetensors"}}',
            "lists '../model-.*; expected files beside it",
        ),
        ('{"weight_map": {"a": "/etc/passwd"}}', "lists '/etc/passwd'; expected files beside it"),
        ('{"weight_map": {"a": "model.safetensors.index.json"}}', "expected files beside it"),
        ('{"weight_map": {"a": 3}}', "lists 3; expected files beside it"),
        ("nothing", "cannot be read"),
    ],
)
def test_what_is_no_index_is_said(tmp_path: Path, content: str, message: str) -> None:
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(content)
    with pytest.raises(ValueError, match=message):
        load_weights(make_net(), index, "Net")

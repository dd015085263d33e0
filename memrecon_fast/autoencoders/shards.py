"""Weights in one file or, as Hugging Face keeps large ones, in several files that an index lists."""

from __future__ import annotations

import re
from pathlib import Path

from torch import Tensor

from memrecon_fast.autoencoders.contents import check_fits
from memrecon_fast.autoencoders.tensors import StateDicts, read_state_dicts
from memrecon_fast.common.files import read_json

_INDEX = ".index.json"
_SHARD = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})(?P<suffix>\.\w+)")
"""model-00001-of-00002.safetensors, whose index is model.safetensors.index.json."""


def read_weights(path: Path, *, trusted: bool = False) -> StateDicts:
    """The state dicts of a file of weights, as `read_state_dicts`; of an index, that of all files that it lists.

    Raises FileNotFoundError where one of them is not there; ValueError for one file of several, an index that is none
    or does not agree with its files, and as `read_state_dicts`.
    """
    if path.name.endswith(_INDEX):
        return {"": _read_shards(path, trusted)}
    shard = _SHARD.fullmatch(path.name)
    if shard is not None and path.is_file() and int(shard["count"]) > 1:
        index = path.with_name(f"{shard['stem']}{shard['suffix']}{_INDEX}")
        there = "give" if index.is_file() else "all of them are needed, and in the same folder, to be given as weights,"
        raise ValueError(
            f"{path} is part {int(shard['number'])} of {int(shard['count'])}: {there} the index {index.name}"
        )
    return read_state_dicts(path, trusted=trusted)


def _read_shards(index: Path, trusted: bool) -> dict[str, Tensor]:
    listed = _listed(index)
    files = [index.with_name(name) for name in sorted(set(listed.values()))]
    check_fits(index, sum(file.stat().st_size for file in files if file.is_file()))
    tensors: dict[str, Tensor] = {}
    for file in files:
        found = read_state_dicts(file, trusted=trusted)
        if found.keys() != {""}:
            raise ValueError(f"{file}, which {index.name} lists, holds more than a state dict: {', '.join(found)}")
        twice = sorted(tensors.keys() & found[""].keys())
        if twice:
            raise ValueError(f"{twice[0]} is in {file.name} and in another file that {index} lists")
        wrong = sorted(
            name for name in found[""].keys() | listed.keys() if _differs(name, file.name, found[""], listed)
        )
        if wrong:
            raise ValueError(f"{index} and {file.name} do not agree on {len(wrong)} tensors, for instance {wrong[0]}")
        tensors |= found[""]
    return tensors


def _differs(name: str, file: str, found: dict[str, Tensor], listed: dict[str, str]) -> bool:
    return (name in found) != (listed.get(name) == file)


def _listed(index: Path) -> dict[str, str]:
    """The name of the file beside the index for each tensor."""
    if not index.exists():
        raise FileNotFoundError(f"there is no file {index}")
    content = read_json(index)
    listed = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(listed, dict) or not listed:
        raise ValueError(f"{index} is no index of weights: it has no weight_map of tensors and files")
    for name in listed.values():
        if not isinstance(name, str) or Path(name).name != name or not _SHARD.fullmatch(name):
            raise ValueError(
                f"{index} lists {name!r}; expected files beside it, such as model-00001-of-00002.safetensors"
            )
    return listed

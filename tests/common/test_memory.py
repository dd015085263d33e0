from __future__ import annotations

from pathlib import Path

import pytest

from memrecon_fast.common.memory import _of_groups, available_memory, in_units


def test_there_is_memory() -> None:
    available = available_memory()
    assert available is None or 2**20 < available < 2**50


def make_group(folder: Path, limit: str, used: int, cached: int, version: int) -> None:
    names = {2: ("memory.max", "memory.current"), 1: ("memory.limit_in_bytes", "memory.usage_in_bytes")}[version]
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in zip(names, (limit, used), strict=True):
        (folder / name).write_text(f"{content}\n")
    (folder / "memory.stat").write_text(f"anon 77\ninactive_file {cached}\nactive_file 1\n")


@pytest.mark.parametrize("version", [1, 2])
def test_the_limits_of_all_groups_above_count(tmp_path: Path, version: int) -> None:
    processes, root = tmp_path / "proc", tmp_path / "cgroup"
    (processes / "self").mkdir(parents=True)
    lines = {1: "5:cpu,cpuacct:/\n4:memory:/batch/job\n0::/\n", 2: "0::/batch/job\n"}[version]
    (processes / "self" / "cgroup").write_text(lines)
    groups = root if version == 2 else root / "memory"
    make_group(groups, "9000", 500, 10, version)
    make_group(groups / "batch", "max", 500, 10, version)
    make_group(groups / "batch" / "job", "1000", 500, 10, version)
    assert list(_of_groups(processes, root)) == [1000 - 500 + 11, 9000 - 500 + 11]


def test_without_control_groups(tmp_path: Path) -> None:
    assert list(_of_groups(tmp_path, tmp_path)) == []
    make_group(tmp_path, "100", 400, 0, 2)  # in a container: the group is called otherwise outside
    (tmp_path / "self").mkdir()
    (tmp_path / "self" / "cgroup").write_text("0::/docker/abc\n")
    assert list(_of_groups(tmp_path, tmp_path)) == [0]


@pytest.mark.parametrize(
    ("count", "words"), [(0, "0 bytes"), (999, "999 bytes"), (1500, "1.5 kB"), (2.5e9, "2.5 GB"), (66e12, "66000 GB")]
)
def test_amounts_in_words(count: float, words: str) -> None:
    assert in_units(count) == words

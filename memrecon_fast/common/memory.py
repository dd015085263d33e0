"""How much memory is free, and amounts of it in words."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

_CACHED = ("inactive_file", "active_file")


def available_memory() -> int | None:
    """Bytes that this process may still take: those of the machine, or fewer where a control group has a limit; None
    where the system does not tell."""
    amounts = [_of_machine(), *_of_groups()]
    return min((amount for amount in amounts if amount is not None), default=None)


def in_units(count: float) -> str:
    """Bytes in words: "1.5 GB"."""
    for unit in ("bytes", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB" if count < 1000 else f"{count:.0f} GB"


def _of_machine() -> int | None:
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
        return None
    except OSError:  # no Linux: what is free now, without what could be
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if _has_free_pages() else None


def _has_free_pages() -> bool:
    return "SC_AVPHYS_PAGES" in getattr(os, "sysconf_names", {})


def _of_groups(processes: Path = Path("/proc"), root: Path = Path("/sys/fs/cgroup")) -> Iterator[int]:
    """What is left by the limit of each control group that this process is in: those of containers, batch systems.

    What a group caches of files counts as used there, but is free.
    """
    for folder, controller, limit, used in (
        (root, "", "memory.max", "memory.current"),  # version 2
        (root / "memory", "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
    ):
        own = _own_group(processes, controller)
        for group in (own, *own.parents):
            with contextlib.suppress(OSError, ValueError):  # not there, or "max"
                statistics = (folder / group / "memory.stat").read_text(encoding="ascii").splitlines()
                cached = sum(int(size) for name, size in map(str.split, statistics) if name in _CACHED)
                limited, taken = (int((folder / group / name).read_text(encoding="ascii")) for name in (limit, used))
                yield max(limited - taken + cached, 0)


def _own_group(processes: Path, controller: str) -> Path:
    """As the system calls it: in a container, where it is called otherwise, the group above all others is there."""
    with contextlib.suppress(OSError):
        for line in (processes / "self" / "cgroup").read_text(encoding="utf-8").splitlines():
            _, controllers, path = line.split(":", 2)
            if controller in controllers.split(","):
                return Path(path.lstrip("/"))
    return Path()

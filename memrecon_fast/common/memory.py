"""How much memory is free, and amounts of it in words."""

from __future__ import annotations

import os
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")
_CACHED = ("inactive_file", "active_file")


def available_memory() -> int | None:
    """Bytes that this process may still take: those of the machine, or fewer where a container has a limit; None where
    the system does not tell."""
    amounts = [_of_machine(), _of_container()]
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


def _of_container() -> int | None:
    """Of the control group, version 2 or 1. What it caches of files counts as used there, but is free."""
    for limit, used, statistics in (
        ("memory.max", "memory.current", "memory.stat"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat"),
    ):
        try:
            allowed, taken, stat = (
                (_CGROUP / name).read_text(encoding="ascii").strip() for name in (limit, used, statistics)
            )
        except OSError:
            continue
        if allowed == "max":
            return None
        cached = sum(int(value) for name, value in map(str.split, stat.splitlines()) if name in _CACHED)
        return max(int(allowed) - int(taken) + cached, 0)
    return None

"""The files below a folder, and what is left out of them and why: nothing is passed over without a word."""

from __future__ import annotations

import heapq
import os
import re
import stat
from collections import Counter, deque
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from memrecon_fast.common.errors import reason
from memrecon_fast.common.files import kind_of_special
from memrecon_fast.common.text import listed

MARKER, MARKER_OF_ATTRACTORS, MARKER_OF_RECONSTRUCTION = "audit.json", "attractors.json", "reconstruction.json"
"""A folder that holds a file of such a name holds results, which may be pictures, and is passed over."""
_MAX_KINDS = 12  # that are named in a line; a folder may hold any number


class LeftOut(NamedTuple):
    """A kind of file that is left out, in words: "named pipe", "named pipes". `rank` says which are told first."""

    rank: int
    one: str
    many: str


NOWHERE = LeftOut(1, "link that leads nowhere", "links that lead nowhere")
AGAIN = LeftOut(1, "link to a folder that is read already", "links to folders that are read already")
RESULTS = LeftOut(2, "folder with the results of an audit", "folders with the results of an audit")
_HIDDEN_FOLDER = LeftOut(3, "hidden folder", "hidden folders")


class Listing(NamedTuple):
    """The relative paths of all regular files that are not hidden, sorted, with "/"; and what else there is."""

    files: list[str]
    left_out: Counter[LeftOut]
    special: list[str]
    """The paths of named pipes, sockets and devices, which are left out."""


def list_files(folder: Path) -> Listing:
    """All files below a folder. Links are followed, also to folders outside of it, each folder once.

    Raises ValueError where a folder cannot be listed.
    """
    files: list[str] = []
    special: list[str] = []
    left_out: Counter[LeftOut] = Counter()
    folders, links = deque([""]), list[str]()  # of which links to folders come last, or a folder could hide behind one
    seen: set[tuple[int, int]] = set()
    while folders or links:
        relative = folders.popleft() if folders else heapq.heappop(links)
        path = folder / relative
        try:
            found = os.stat(path)
            identity = (found.st_dev, found.st_ino)
            if identity in seen:
                left_out[AGAIN] += 1
                continue
            seen.add(identity)
            with os.scandir(path) as scanned:
                entries = list(scanned)
        except OSError as error:
            raise ValueError(f"the folder {path} cannot be listed: {reason(error)}") from error
        if any(entry.name in (MARKER, MARKER_OF_ATTRACTORS, MARKER_OF_RECONSTRUCTION) for entry in entries):
            left_out[RESULTS] += 1
            continue
        for entry in entries:
            name = f"{relative}/{entry.name}" if relative else entry.name
            mode = _mode(entry)
            if mode is None:
                left_out[NOWHERE] += 1
            elif entry.name.startswith("."):
                left_out[_HIDDEN_FOLDER if stat.S_ISDIR(mode) else _hidden(entry.name)] += 1
            elif stat.S_ISDIR(mode):
                heapq.heappush(links, name) if entry.is_symlink() else folders.append(name)
            elif stat.S_ISREG(mode):
                files.append(name)
            else:
                kind = (kind_of_special(mode) or "").removeprefix("a ")
                left_out[LeftOut(1, kind, f"{kind}s")] += 1
                special.append(name)
    return Listing(sorted(files), left_out, special)


def with_suffix(rank: int, name: str, one: str, many: str) -> LeftOut:
    """The kind of a file by its suffix: ".heic file that …". What is no plain suffix could say anything, and is not
    told."""
    suffix = Path(name).suffix.lower()
    if not re.fullmatch(r"\.[a-z0-9_~+-]{1,12}", suffix):
        return LeftOut(rank, f"other {one}", f"other {many}")
    return LeftOut(rank, f"{suffix} {one}", f"{suffix} {many}")


def sentence(left_out: Mapping[LeftOut, int]) -> str:
    """By kind and number, in one line: "30 .heic files that cannot be read here and 2 named pipes are left out"."""
    kinds = sorted(left_out, key=lambda kind: (kind.rank, -left_out[kind], kind))
    words = [f"{left_out[kind]} {kind.one if left_out[kind] == 1 else kind.many}" for kind in kinds[:_MAX_KINDS]]
    if more := kinds[_MAX_KINDS:]:
        words.append(f"{sum(left_out[kind] for kind in more)} files of {len(more)} other kinds")
    return f"{listed(words)} {'is' if sum(left_out.values()) == 1 else 'are'} left out"


def _hidden(name: str) -> LeftOut:
    """A hidden picture is told as such; that of a Mac beside each file, "._NAME", is none."""
    if name.startswith("._") or not Path(name).suffix:
        return LeftOut(4, "hidden file", "hidden files")
    return with_suffix(4, name, "file that is hidden", "files that are hidden")


def _mode(entry: os.DirEntry[str]) -> int | None:
    """The st_mode of what it is or leads to; None where it leads nowhere. Quick for files and folders."""
    try:
        if entry.is_file():
            return stat.S_IFREG
        if entry.is_dir():
            return stat.S_IFDIR
        return os.stat(entry.path).st_mode
    except OSError:
        return None

"""Several sources as one: what a pattern matches, files that are named, one folder after another."""

from __future__ import annotations

import bisect
import glob
import itertools
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from memrecon_fast.images.decode import IMAGE_SUFFIXES
from memrecon_fast.images.folder import check_one_split, is_image_file, open_image_files
from memrecon_fast.images.source import Look, Size, Source
from memrecon_fast.images.splits import in_words, splits_of_files


def expand(text: str) -> list[str]:
    """What a pattern with *, ? or [ matches, sorted; ** is any number of folders. Another name stands for itself.

    Raises FileNotFoundError where nothing matches, and ValueError where it matches several splits.
    """
    if os.path.lexists(text) or not glob.has_magic(text):
        return [text]
    found = sorted(glob.glob(text, recursive=True))
    if not found:
        raise FileNotFoundError(f"there is no file or folder that {text} matches")
    if all(map(os.path.isfile, found)) or all(map(os.path.isdir, found)):
        _, relative = _relative(found)
        are_folders = os.path.isdir(found[0])
        check_one_split(text, [f"{one}/" for one in relative] if are_folders else relative, not _are_images(found))
    return found


def join(texts: Sequence[str], open_one: Callable[[str], Source], is_source: Callable[[str], object]) -> Source:
    """The sources of these names as one. Image files are one source, named by their paths below the folder that they
    have in common; the names of other sources come before those of their images, where there are several.

    Raises ValueError where one is named twice.
    """
    twice = [text for text, count in Counter(map(os.path.realpath, texts)).items() if count > 1]
    if twice:
        raise ValueError(f"{twice[0]} is named twice")
    if len(texts) == 1 and (is_source(texts[0]) or not _are_images(texts)):
        return open_one(texts[0])
    if not any(map(is_source, texts)) and _are_images(texts):
        folder, files = _relative(texts)
        return open_image_files(Path(folder), tuple(files), _remark_on_splits(dict.fromkeys(texts, 1)))
    sources = [open_one(text) for text in texts]
    names = tuple(f"{text}/{name}" for text, source in zip(texts, sources, strict=True) for name in source.names)
    reader = _Joined(tuple(sources))
    remarks = [f"{text}: {remark}" for text, source in zip(texts, sources, strict=True) for remark in source.remarks]
    on_splits = _remark_on_splits(dict(zip(texts, map(len, sources), strict=True)))
    return Source(names, reader, reader.look, (*on_splits, *remarks))


class _Joined:
    """Reads images of sources, one after the other."""

    def __init__(self, sources: tuple[Source, ...]) -> None:
        self._sources = sources
        self._begins = [0, *itertools.accumulate(map(len, sources))]

    def __call__(self, index: int) -> NDArray[Any]:
        source, own = self._find(index)
        return source.read(own)

    def look(self, index: int, size: Size | None) -> Look:
        """Image `index`, see `Source.look`."""
        source, own = self._find(index)
        return Look(source.read(own)) if source.look is None else source.look(own, size)

    def _find(self, index: int) -> tuple[Source, int]:
        which = bisect.bisect_right(self._begins, index) - 1
        return self._sources[which], index - self._begins[which]


def _relative(texts: Sequence[str]) -> tuple[str, list[str]]:
    """The folder that these paths have in common, and the paths below it, with "/"."""
    folder = os.path.commonpath([os.path.dirname(os.path.abspath(text)) for text in texts])
    return folder, [os.path.relpath(text, folder).replace(os.sep, "/") for text in texts]


def _are_images(texts: Sequence[str]) -> bool:
    return all(is_image_file(Path(text)) for text in texts)


def _remark_on_splits(images: Mapping[str, int]) -> tuple[str, ...]:
    """That these sources, each of so many images, belong to several splits: it is what the user wants, or what a shell
    made of a pattern."""
    splits: dict[str, Counter[str]] = {}
    for text, place, count in zip(images, _relative(list(images))[1], images.values(), strict=True):
        by_name = Path(text).suffix.lower() not in IMAGE_SUFFIXES
        for split, places in splits_of_files([f"{place}/" if os.path.isdir(text) else place], by_name).items():
            splits.setdefault(split, Counter()).update({where: count for where in places})
    if len(splits) < 2:
        return ()
    return (f"several splits were named and are one set here: {in_words(splits, 'images')}",)

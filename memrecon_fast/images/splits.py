"""The splits of a data set, "train" and "test", which must not be taken as one set of members."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import PurePosixPath

_WORDS = {
    "train": ("train", "training", "trainset", "trainval"),
    "test": ("test", "testing", "testset"),
    "validation": ("val", "valid", "validation", "valset", "dev", "devset"),
    "evaluation": ("eval", "evaluation"),
}
_MAX_NAMED = 8
_OF = {word: split for split, words in _WORDS.items() for word in words}
_ANY = "|".join(sorted(_OF, key=len, reverse=True))
# the word alone, or set apart: "test", "x_test", "train2017", "train-00000-of-00002", and "testA" as CycleGAN has it
_NAME = re.compile(rf"((?:.*[^a-z])?({_ANY}))(?:[^a-z].*|[ab])?", re.DOTALL)


@lru_cache(maxsize=4096)
def split_of(name: str) -> str | None:
    """The split that a name tells, for instance "train" of "train2017" and "x_train"; None where it tells none."""
    found = _NAME.fullmatch(name.lower())
    return None if found is None else _OF[found[2]]


def splits_of_files(files: Iterable[str], by_name: bool) -> dict[str, Counter[str]]:
    """Each split that these paths tell: how many files are in which of its folders, or by what their names begin.

    by_name: whether a file's own name counts where no folder tells a split; else only where the names of all do, by a
        split and a number: "test_0012.png".
    """
    files = list(files)
    by_name = by_name or all(_is_numbered(file) for file in files)
    found: dict[str, Counter[str]] = {}
    for file in files:
        *folders, name = file.split("/")
        for depth, folder in enumerate(folders):
            if split := split_of(folder):
                found.setdefault(split, Counter())["/".join(folders[: depth + 1])] += 1
                break
        else:
            if by_name and (match := _NAME.fullmatch(PurePosixPath(name).stem.lower())):
                begin = "/".join([*folders, name[: match.end(1)]])
                found.setdefault(_OF[match[2]], Counter())[f"{begin}*{PurePosixPath(name).suffix}"] += 1
    return {split: found[split] for split in _WORDS if split in found}


def in_words(splits: Mapping[str, Mapping[str, int]], unit: str) -> str:
    """ "10 images in train, 6 in test"."""
    places = [(place, count) for counts in splits.values() for place, count in counts.items()]
    words = [f"{count}{f' {unit}' if at == 0 else ''} in {place}" for at, (place, count) in enumerate(places)]
    more = f" and {len(words) - _MAX_NAMED} more" if len(words) > _MAX_NAMED else ""
    return ", ".join(words[:_MAX_NAMED]) + more


def _is_numbered(file: str) -> bool:
    stem = PurePosixPath(file).stem.lower()
    return re.fullmatch(rf"(?:{_ANY})[^a-z]*\d[^a-z]*", stem) is not None

"""The folder of a run opened for work: a new run, or one that is continued if it is the same."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from memrecon_fast.audit.store.checking import fault_of_images
from memrecon_fast.audit.store.folder import Folder, check_empty, check_folders, locked
from memrecon_fast.audit.store.manifest import (
    DESCRIPTION,
    TRAITS,
    cells_of,
    differences,
    parts_of,
    plan_digest,
    read_description,
    versions,
    without_other_methods,
    write_description,
)
from memrecon_fast.audit.store.parts import Parts
from memrecon_fast.audit.store.records import Columns
from memrecon_fast.images.duplicates import find_near_duplicates
from memrecon_fast.images.scan import Images, columns_of, images_table, read_images, read_images_table, write_images

IMAGES = "images.parquet"
_MAX_NAMED = 3


@dataclasses.dataclass(frozen=True)
class OpenRun:
    """A run that is worked on."""

    folder: Folder
    description: dict[str, Any]
    """The content of `audit.json`."""


@contextlib.contextmanager
def open_run(
    splits: Mapping[str, Images],
    description: Mapping[str, Any],
    run: Path,
    resume: bool,
    remark: Callable[[str], None],
) -> Iterator[OpenRun]:
    """The folder of a run, new or to be continued, with no other one at work in it.

    splits: the images of the audit. description: of `plan.describe`. resume: there must be a run to continue. remark:
    called with each remark, one line.

    Raises ValueError where the folder holds something else, or a run that differs: with what differs.
    """
    if not check_run_folder(run, resume):
        open_parts(run, description).check()
        run.mkdir(parents=True, exist_ok=True)
    with locked(run):
        if (run / DESCRIPTION).exists():
            before = read_description(run)
            check_same(splits, without_other_methods(before["plan"]), description["plan"], run)
            _check_traits(before.get(TRAITS, {}), description[TRAITS], run)
            remark_on_versions(before["sessions"], remark)
            description = {TRAITS: description[TRAITS], **before}  # earlier versions did not record them
            open_parts(run, description).check()
        else:
            write_description(run, description)  # before all else: what is not empty must be a run's
        folder = Folder(run, open_parts(run, description))
        images = mend_images(splits, run, remark, description["plan"]["degraded"])
        for fault in folder.mend(cells_of(description), images):
            remark(f"{fault}; it is set aside, and what it held is done again")
        yield OpenRun(folder, dict(description))


def open_parts(run: Path, description: Mapping[str, Any]) -> Parts:
    """The part files of a run."""
    return Parts(parts_of(run, description), plan_digest(description))


def check_run_folder(run: Path, resume: bool) -> bool:
    """Whether there is a run in the folder; if not, it must be new or empty, and `resume` False. Raises ValueError."""
    if has_run(run, resume, DESCRIPTION):
        check_folders(run)
        return True
    return False


def has_run(run: Path, resume: bool, description: str, kind: str = "audit") -> bool:
    """The same for any kind of run. description: the name of the file that describes it."""
    if (run / description).exists():
        return True
    if resume:
        raise ValueError(f"there is no run to continue in {run}: it has no {description}")
    check_empty(run, kind)
    return False


def read_known_images(run: Path, description: Mapping[str, Any]) -> Columns:
    """The images of a run, see `scan.read_images`. Raises ValueError unless they are those that it was begun with."""
    path = run / IMAGES
    again = "the audit, given again, writes it anew"
    try:
        images = read_images(path)
    except ValueError as error:
        raise ValueError(f"{error}; {again}") from error
    if fault := fault_of_images(images, description):
        raise ValueError(f"{path} is not as it was written: {fault}; {again}")
    return images


def mend_images(
    splits: Mapping[str, Images], run: Path, remark: Callable[[str], None], degraded: bool = False
) -> Columns:
    """Write `images.parquet` where it is not there, or not what the images say; returns its columns."""
    near_duplicates = {}
    if "controls" in splits and not degraded:  # degraded ones differ less than their originals
        near_duplicates = find_near_duplicates(splits["members"], splits["controls"])
    expected, path = images_table(splits, near_duplicates), run / IMAGES
    if path.exists():
        try:
            fault = "" if read_images_table(path).equals(expected) else f"{path} is not what the images say"
        except ValueError as error:
            fault = str(error)
        if not fault:
            return columns_of(expected)
        remark(f"{fault}; it is written anew")
    write_images(path, splits, near_duplicates)
    return columns_of(expected)


def remark_on_versions(sessions: Sequence[Mapping[str, Any]], remark: Callable[[str], None]) -> None:
    """Say where a run goes on with other versions than those of its last session."""
    if not sessions:
        return
    before, now = sessions[-1]["versions"], versions()
    changed = [f"{name} {before.get(name)} then, {now[name]} now" for name in now if before.get(name) != now[name]]
    if changed:
        remark(f"the last bits of what follows may differ from what was done before: {', '.join(changed)}")


def check_same(
    splits: Mapping[str, Images], before: Mapping[str, Any], now: Mapping[str, Any], run: Path, kind: str = "audit"
) -> None:
    """Raise ValueError, which says what differs, unless the plan of a run is what it was before."""
    found = differences(before, now)
    if not found:
        return
    changed = _changed_images(splits, run)
    raise ValueError(
        f"{run} holds another {kind}; it can be continued only as it was begun, and another one needs another folder. "
        f"What differs: {', '.join(found)}"
        + (f" ({changed})" if changed else "")
        + _how_to_go_on(before.get("methods"), now.get("methods"))
    )


def _check_traits(before: Mapping[str, Any], now: Mapping[str, Any], run: Path) -> None:
    """Raise ValueError where a method of the run was another one of the same name, as far as that is recorded."""
    for name, traits in before.items():
        for what, value in traits.items():
            if name in now and now[name][what] != value:
                raise ValueError(
                    f"{run} was begun with another method {name!r}: {what} was {value!r}, and is {now[name][what]!r} "
                    f"now; give the method another name, or another folder"
                )


def _how_to_go_on(before: Sequence[str] | None, now: Sequence[str] | None) -> str:
    """With the methods of the run: those of a command that names none are not the same in all versions."""
    if before is None or before == now:
        return ""
    return f"; to go on with its methods, say {' '.join(f'--method {name}' for name in before)}"


def _changed_images(splits: Mapping[str, Images], run: Path) -> str:
    """Which images are not those that the run was begun with, in words."""
    if not (run / IMAGES).exists():
        return ""
    table = read_images(run / IMAGES)
    words = []
    for split, images in splits.items():
        ours = table["split"] == split
        before = dict(zip(table["name"][ours], table["sha256"][ours], strict=True))
        now = dict(zip(images.names, images.sha256, strict=True))
        for what, names in (
            ("changed", [name for name in now if name in before and before[name] != now[name]]),
            ("new", [name for name in now if name not in before]),
            ("gone", [name for name in before if name not in now]),
        ):
            if names:
                more = f" and {len(names) - _MAX_NAMED} more" if len(names) > _MAX_NAMED else ""
                words.append(f"{what} among the {split}: {', '.join(names[:_MAX_NAMED])}{more}")
    return "; ".join(words)

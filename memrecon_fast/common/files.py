"""Atomic writes: a file appears whole or not at all; also of JSON and CSV. Reads of regular files alone."""

from __future__ import annotations

import contextlib
import csv
import errno
import json
import os
import re
import stat
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

UNFINISHED = ".tmp"
"""The suffix of temporary files; those of a killed process may be removed."""
_TEMPORARY = re.compile(rf"\..+\.[0-9]+{re.escape(UNFINISHED)}", re.DOTALL)
_CONTROL = ("\t", "\r", "\n")
_PASSED_OVER = ("Cc", "Cf", "Zs", "Zl", "Zp", "Pi", "Pf")  # by Unicode: unseen, spaces, quotation marks

_SPECIAL = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
}
_READ = os.O_RDONLY | sum(getattr(os, flag, 0) for flag in ("O_BINARY", "O_CLOEXEC", "O_NOCTTY", "O_NONBLOCK"))


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a regular file, or a link to one, to read its bytes.

    Raises OSError, whose strerror says what it is, for anything else: a named pipe would be waited for for ever, and a
    device has no end. It is asked before it is opened, as to open may have effects, and once more of what was opened,
    which may have taken its place.
    """
    _check_regular(os.stat(path), path)
    descriptor = os.open(path, _READ)
    try:
        _check_regular(os.fstat(descriptor), path)
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def placeholder(beginning: bytes) -> str | None:
    """What a file that begins so, with 64 bytes or more, stands for, where the content itself is elsewhere."""
    if beginning.startswith(b"version https://git-lfs.github.com/"):
        return "a Git LFS pointer, not the file itself, which `git lfs pull` fetches"
    if beginning.startswith((b"/annex/objects/", b"../.git/annex/")):
        return "a pointer of git-annex, not the file itself, which `git annex get` fetches"
    return None


def kind_of_special(mode: int) -> str | None:
    """What a file of this st_mode is, where it is no regular file: "a named pipe", "a socket", …"""
    return None if stat.S_ISREG(mode) else _SPECIAL.get(stat.S_IFMT(mode), "of an unknown kind")


def _check_regular(found: os.stat_result, path: str | os.PathLike[str]) -> None:
    kind = kind_of_special(found.st_mode)
    if kind is not None:
        raise OSError(errno.EINVAL, f"it is {kind}, no regular file", os.fspath(path))


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, which it replaces when the block ends without an error.

    What was written is on the disk by then: a machine that loses power has the old file or the new one.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}{UNFINISHED}")
    try:
        yield temporary
        with open(temporary, "r+b") as written:  # Windows wants it writable
            os.fsync(written.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_unfinished(folder: Path) -> None:
    """Remove the temporary files that a killed process left in the folder: those named as `replacing` names them."""
    for path in folder.glob(f".*{UNFINISHED}"):
        if _TEMPORARY.fullmatch(path.name) and (path.is_symlink() or path.is_file()):
            path.unlink(missing_ok=True)  # a report may be written meanwhile, and be done by now


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write an object as JSON, whole or not at all. Raises ValueError for NaN and infinity, which JSON has not."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """The content of a JSON file. Raises FileNotFoundError, and ValueError for what is no JSON, whatever it holds."""
    try:
        with open_regular(path) as stream:
            return json.loads(stream.read().decode("utf-8"), parse_constant=_refuse_constant)
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    except RecursionError as error:
        raise ValueError(f"{path} cannot be read: its content is nested too deeply") from error


def _refuse_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows of text, numbers and None (an empty field) as UTF-8, whole or not at all; booleans as 0 and 1.

    Names come from other people's files, and a spreadsheet runs a field that begins with = + - @ as a formula, quoted
    or not, some also behind what cannot be seen, or with the full-width forms of these signs: such text gets an
    apostrophe in front, which spreadsheets take for "this is text". All text is quoted, so that no spreadsheet with
    another separator divides it and finds a formula inside.
    """
    with replacing(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, header, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({name: _field(value) for name, value in row.items()})


def _field(value: Any) -> Any:
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, str) and _may_be_formula(value):
        return f"'{value}"
    return value


def _may_be_formula(text: str) -> bool:
    if text.startswith(_CONTROL):
        return True
    seen = (one for one in text if unicodedata.category(one) not in _PASSED_OVER and one not in "'\"`´")
    first = next(seen, "")
    return first != "" and unicodedata.normalize("NFKC", first) in "=+-@−"

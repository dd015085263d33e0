"""Format an exception in one line."""

from __future__ import annotations

from typing import Any

_OF_AUTOENCODER = "raised by the forward pass of the autoencoder"


class NothingFoundError(ValueError):
    """The work is done, as far as it can be, and there is nothing to show: says why."""


class AutoencoderChangedError(RuntimeError):
    """The autoencoder does not answer as it did when it was tried: what was recovered with it is in doubt."""


def note_autoencoder(error: BaseException) -> None:
    """Note on an error that it came out of the autoencoder; a traceback shows it from Python 3.11 on."""
    notes: list[Any] = getattr(error, "__notes__", [])
    if _OF_AUTOENCODER not in notes:
        error.__notes__ = [*notes, _OF_AUTOENCODER]  # type: ignore[attr-defined]


def is_of_autoencoder(error: BaseException) -> bool:
    """Whether the error came out of the autoencoder."""
    return _OF_AUTOENCODER in getattr(error, "__notes__", [])


def one_line(error: BaseException) -> str:
    """The kind of the error and the first line of its message: "ValueError: no image"."""
    line = first_line(error)
    return f"{type(error).__name__}: {line}" if line else type(error).__name__


def first_line(error: BaseException) -> str:
    """The first line of its message alone; "" where it has none."""
    return next(iter(str(error).strip().splitlines()), "")


def reason(error: BaseException) -> str:
    """All of its message in one line, without the path that the system adds; the kind of the error without one."""
    text = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
    return " ".join(text.split())


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, on a GPU or on a CPU."""
    import torch  # which most errors have nothing to do with: the command names them without it

    if isinstance(error, (torch.cuda.OutOfMemoryError, MemoryError)):
        return True
    # the first is said by torch's allocator for CPUs, the others by CUDA and its libraries
    messages = ("can't allocate memory", "CUDA error: out of memory", "_STATUS_ALLOC_FAILED")
    return isinstance(error, RuntimeError) and any(message in str(error) for message in messages)

"""What the command says: one line for each error, and where what was done is."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import typer

from memrecon_fast.common.errors import first_line, is_out_of_memory, one_line

EXTRAS = ("PIL", "filelock", "jinja2", "matplotlib", "pyarrow", "safetensors", "skimage")


@contextlib.contextmanager
def checking() -> Iterator[None]:
    """Errors in what the user gave become one line and exit code 2."""
    missing = [name for name in EXTRAS if importlib.util.find_spec(name) is None]
    if missing:
        refuse(f"needs {', '.join(missing)}; pip install 'memrecon-fast[audit]'")
    try:
        yield
    except (ValueError, TypeError, OSError) as error:
        if wants_traceback():
            raise
        refuse(str(error))
    except RuntimeError as error:
        if wants_traceback() or not is_out_of_memory(error):
            raise
        refuse(f"memory ran out before the work could begin: {first_line(error)}")


@contextlib.contextmanager
def saying_warnings() -> Iterator[None]:
    """Remarks, which are RuntimeWarnings, become one line each."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", RuntimeWarning)
        yield
    for warning in caught:
        if issubclass(warning.category, RuntimeWarning):
            say(str(warning.message))
        else:
            warnings.showwarning(warning.message, warning.category, warning.filename, warning.lineno)


@contextlib.contextmanager
def keeping_records(run: Path, resumable: bool = True) -> Iterator[None]:
    """Whatever ends the work early, Ctrl-C or an error in the model: say where the finished part is.

    resumable: whether the same command continues the run.
    """
    try:
        yield
    except KeyboardInterrupt:
        say(f"interrupted; {_kept(run, resumable)}")
        raise typer.Exit(130) from None
    except Exception as error:
        say(f"{one_line(error)}; {_kept(run, resumable)}")
        if wants_traceback():
            raise
        raise typer.Exit(1) from error


def _kept(run: Path, resumable: bool) -> str:
    from memrecon_fast.audit.store.manifest import DESCRIPTION

    if not (run / DESCRIPTION).exists():
        return "no image was done"
    goes_on = "the same command goes on from there, " if resumable else ""
    return f"what was done is in {run}: {goes_on}memrecon report {run} shows it"


def wants_traceback() -> bool:
    """Whether the environment asks for tracebacks."""
    return os.environ.get("MEMRECON_TRACEBACK", "") not in ("", "0")


def refuse(message: str) -> NoReturn:
    """One line and exit code 2."""
    say(message)
    raise typer.Exit(2)


def say(message: str) -> None:
    """One line on stderr. Names come from other people's files: what would steer a terminal is shown escaped."""
    line = " ".join(message.split())
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in line)
    typer.echo(f"memrecon: {shown}", err=True)

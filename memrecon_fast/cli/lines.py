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

from memrecon_fast.common.errors import (
    AutoencoderChangedError,
    NothingFoundError,
    first_line,
    is_of_autoencoder,
    is_out_of_memory,
    one_line,
)
from memrecon_fast.common.text import escaped

# BadParameter is a UsageError of click; which click, typer's version decides: 0.29 carries one of its own, so that
# click.UsageError would not be what it raises
UsageError: type[Exception] = typer.BadParameter.__bases__[0]
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
    except (typer.Exit, typer.Abort, UsageError):
        raise
    except Exception as error:
        if wants_traceback():
            raise
        if is_out_of_memory(error):
            refuse(f"memory ran out before the work could begin: {first_line(error)}")
        refuse(f"{one_line(error)}; MEMRECON_TRACEBACK=1 shows where that comes from")


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
def keeping_records(run: Path, model: str, resumable: bool = True) -> Iterator[None]:
    """Whatever ends the work early, Ctrl-C or an error in the model: say where the finished part is.

    model: what the user called it. resumable: whether the same command continues the run.
    """
    try:
        yield
    except KeyboardInterrupt:
        say(f"interrupted; {_kept(run, resumable)}")
        raise typer.Exit(130) from None
    except NothingFoundError as error:
        refuse(str(error))
    except AutoencoderChangedError as error:
        say(f"{model}: {error}; {_kept(run, resumable=False)}")
        raise typer.Exit(1) from error
    except Exception as error:
        if is_of_autoencoder(error):
            mended = "with fewer --slots" if is_out_of_memory(error) else "once it takes these images"
            goes_on = f", and {mended} the same command goes on from there" if resumable else ""
            say(f"the model {model} failed: {one_line(error)}; {_kept(run, resumable=False)}{goes_on}")
        else:
            say(f"{one_line(error)}; {_kept(run, resumable)}")
        if wants_traceback():
            raise
        raise typer.Exit(1) from error


def _kept(run: Path, resumable: bool) -> str:
    from memrecon_fast.attractors.survey.manifest import DESCRIPTION as OF_SURVEY
    from memrecon_fast.audit.store.manifest import DESCRIPTION as OF_AUDIT
    from memrecon_fast.reconstruction.kept.store import DESCRIPTION as OF_RECONSTRUCTION
    from memrecon_fast.reconstruction.kept.store import SOLUTIONS

    if (run / OF_RECONSTRUCTION).exists() and not any((run / SOLUTIONS).glob("*.npz")):
        return "no start was made to its end, the same command begins again"
    if not any((run / description).exists() for description in (OF_AUDIT, OF_SURVEY, OF_RECONSTRUCTION)):
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
    typer.echo(f"memrecon: {escaped(line)}", err=True)

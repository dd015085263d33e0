"""Models from a factory, "package.module:function" or "path/to/file.py:function"."""

from __future__ import annotations

import argparse
import contextlib
import difflib
import importlib
import importlib.util
import inspect
import os
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

from torch import nn

from memrecon_fast.common.errors import one_line
from memrecon_fast.common.typing import Autoencoder

_NAME = r"[^\W\d]\w*(?:\.[^\W\d]\w*)*"


def is_factory(name: str) -> bool:
    """Whether `name` reads like module:function, with a dotted name or a path for the module (a file of that whole name
    does not count)."""
    wanted = rf"(?:{_NAME}|[^:]*(?:/|\\|\.py)[^:]*):{_NAME}(?:\(\))?"
    return re.fullmatch(wanted, name) is not None and not os.path.exists(name)


def call_factory(name: str, arguments: Mapping[str, Any] | None = None) -> Autoencoder:
    """Import the module, from the current working directory first, and call the function; an nn.Module in its place is
    taken as it is.

    name: "package.module:function", "path/to/file.py:function"; a class does for a function, and so does what a dotted
        name leads to: "package.module:Class.from_file". arguments: for the function, by name.

    Raises ValueError where there is no such module or function, it fails, or it returns nothing that can be called.
    """
    place, _, path = name.removesuffix("()").partition(":")
    with _on_path(*_folders_of(place)):
        module = _import(name, place)
        factory = _find(name, module, path)
        if isinstance(factory, nn.Module):
            if arguments:
                raise ValueError(f"{name} is a {type(factory).__name__}, no function: it takes no arguments")
            return factory
        model = _call(name, path, factory, dict(arguments or {}))
    if not callable(model):
        raise ValueError(
            f"{name} returned a {type(model).__name__}; expected a callable (B, *image_shape) → (B, *image_shape), "
            f"usually a torch.nn.Module"
        )
    return model  # type: ignore[no-any-return]


def _is_file(place: str) -> bool:
    return "/" in place or os.sep in place or place.endswith(".py")


def _folders_of(place: str) -> list[str]:
    """Where the module, and what it imports, is looked for first."""
    return [*([os.path.dirname(os.path.abspath(place))] if _is_file(place) else []), os.getcwd()]


@contextlib.contextmanager
def _on_path(*folders: str) -> Iterator[None]:
    before = list(sys.path)
    sys.path[:0] = folders
    try:
        yield
    finally:
        sys.path[:] = before


def _import(name: str, place: str) -> ModuleType:
    try:
        with _contained(place):
            return _load_file(place) if _is_file(place) else importlib.import_module(place)
    except FileNotFoundError as error:
        if not _is_file(place) or error.filename != place:
            raise ValueError(_why_not(name, place, error)) from error
        stem = place.removesuffix(".py")
        dotted = stem.replace("/", ".").replace(os.sep, ".").strip(".")
        hint = f"; there is {stem}.py: {stem}.py:{name.partition(':')[2]}" if os.path.isfile(f"{stem}.py") else ""
        raise ValueError(
            f"{name}: there is no file {place}{hint}; expected package.module:function ({dotted}:…) or "
            f"path/to/file.py:function"
        ) from error
    except Exception as error:  # the module is a person's own code, which may raise anything
        raise ValueError(_why_not(name, place, error)) from error


@contextlib.contextmanager
def _contained(place: str) -> Iterator[None]:
    """For a person's own code: it does not see our arguments, and what would end the program is an error like any."""
    arguments, usual = sys.argv, argparse.ArgumentParser.error
    sys.argv = [place]
    setattr(argparse.ArgumentParser, "error", _end)  # noqa: B010 (which would print how this program is used)
    try:
        yield
    except (Exception, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise RuntimeError(f"it tried to end the program ({one_line(error)})") from error
    finally:
        sys.argv = arguments
        setattr(argparse.ArgumentParser, "error", usual)  # noqa: B010


def _end(parser: argparse.ArgumentParser, message: str) -> NoReturn:
    raise SystemExit(message)


def _why_not(name: str, place: str, error: Exception) -> str:
    where = "" if _is_file(place) else f" from {os.getcwd()} or the installed packages"
    hint = ""
    if isinstance(error, ImportError) and "relative import" in str(error):
        hint = "; a module of a package is named package.module:function, from the folder above the package"
    return f"{name}: cannot import {place}{where}: {type(error).__name__}: {error}{hint}"


def _load_file(place: str) -> ModuleType:
    """Run a file as a module, under a name that no other module has."""
    if not os.path.isfile(place):
        raise FileNotFoundError(2, "no such file", place)
    name = "memrecon_factory_" + re.sub(r"\W", "_", Path(place).stem)
    spec = importlib.util.spec_from_file_location(name, place)
    if spec is None or spec.loader is None:
        raise ImportError(f"{place} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses, for instance, look their module up
    spec.loader.exec_module(module)
    return module


def _find(name: str, module: ModuleType, path: str) -> Any:
    found: Any = module
    for part in path.split("."):
        if not hasattr(found, part):
            close = difflib.get_close_matches(part, [one for one in dir(found) if not one.startswith("_")], 1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise ValueError(f"{name}: {_file_of(module)} has no function {path}{hint}")
        found = getattr(found, part)
    if not callable(found):
        raise ValueError(f"{name}: {_file_of(module)} has no function {path}: it is a {type(found).__name__}")
    return found


def _file_of(module: ModuleType) -> str:
    return getattr(module, "__file__", None) or module.__name__


def _call(name: str, path: str, factory: Any, arguments: dict[str, Any]) -> Any:
    given = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
    how = f"with {given}" if given else "without arguments"
    try:
        with _contained(name.partition(":")[0]):
            return factory(**arguments)
    except Exception as error:
        raise ValueError(
            f"{name}: calling {path}() {how} failed: {type(error).__name__}: {error}{_hint(factory, arguments)}"
        ) from error


def _hint(factory: Any, arguments: Mapping[str, Any]) -> str:
    """What it should have been given, where that is what was wrong."""
    try:
        signature = inspect.signature(factory)
    except (TypeError, ValueError):
        return ""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    named = {key: one for key, one in signature.parameters.items() if one.kind not in kinds}
    needed = [key for key, one in named.items() if one.default is one.empty and key not in arguments]
    if needed:
        example = ", ".join(f'"{key}": …' for key in needed)
        return f"; give --arguments '{{{example}}}', or a function that makes the model"
    any_name = any(one.kind == one.VAR_KEYWORD for one in signature.parameters.values())
    unknown = [key for key in arguments if key not in named and not any_name]
    return f"; its arguments are {', '.join(named) or 'none'}" if unknown else ""

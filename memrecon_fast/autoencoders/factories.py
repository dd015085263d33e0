"""Models from a factory, "package.module:function"."""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Callable

from torch import Tensor


def is_factory(name: str) -> bool:
    """Whether `name` reads like package.module:function (a file of that name does not count)."""
    return re.fullmatch(r"[^\W\d][\w.]*:[^\W\d]\w*", name) is not None and not os.path.exists(name)


def call_factory(name: str) -> Callable[[Tensor], Tensor]:
    """Import the module, from the current working directory first, and call the function without arguments.

    Raises ValueError where there is no such module or function, it fails, or it returns nothing that can be called.
    """
    module_name, _, function_name = name.partition(":")
    folder = os.getcwd()
    sys.path.insert(0, folder)
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # the module is a person's own code, which may raise anything
        raise ValueError(
            f"{name}: cannot import {module_name} from {folder} or the installed packages: "
            f"{type(error).__name__}: {error}"
        ) from error
    finally:
        sys.path.remove(folder)
    factory = getattr(module, function_name, None)
    if not callable(factory):
        raise ValueError(f"{name}: {module_name} ({module.__file__}) has no function {function_name}")
    try:
        model = factory()
    except Exception as error:
        raise ValueError(
            f"{name}: calling {function_name}() without arguments failed: {type(error).__name__}: {error}"
        ) from error
    if not callable(model):
        raise ValueError(
            f"{name} returned a {type(model).__name__}; expected a callable (B, *image_shape) → (B, *image_shape), "
            f"usually a torch.nn.Module"
        )
    return model  # type: ignore[no-any-return]

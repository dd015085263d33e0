"""Models that torch.export wrote, `.pt2`: programs."""

from __future__ import annotations

import contextlib
import io
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from memrecon_fast.autoencoders.contents import INSTEAD, PROGRAM, kind_of, open_file
from memrecon_fast.common.errors import one_line


def load_exported(path: Path, device: str | torch.device = "cpu", *, trust_model: bool = False) -> nn.Module:
    """The model of a `.pt2` file on this device, a callable (B, *image_shape) → the same for any B that it was exported
    for.

    A `.pt2` file is a program, which can do anything when it is opened: torch.export unpickles and evaluates what is in
    it. So nothing but its table of contents is read unless it is trusted.

    Raises ValueError for a file that is not trusted, is corrupt or something else, holds more than there is memory for,
    was exported in another format than float32, or has a fixed batch size.
    """
    with open_file(path) as file:
        kind = kind_of(path, file)
        if kind != "exported":
            raise ValueError(f"{path} is not a torch.export archive; it is {INSTEAD[kind]}")
        if not trust_model:
            raise ValueError(
                f"{path} is refused: {PROGRAM}. If you trust who made it as you would to install their software, say "
                f"so: --trust-model, or trust_model=True"
            )
        content = io.BytesIO(file.read())
    with _saying_why(path):
        program = torch.export.load(content)
    shape, sizes = _images_of(path, program)
    _check_is_float32(path, program)
    with _saying_why(path):
        if torch.device(device).type != "cpu":
            from torch.export.passes import move_to_device_pass  # not in the oldest versions of torch that we support

            program = move_to_device_pass(program, device)
        module = program.module()
    # what a model states of itself: how many images it takes at a time, and of which shape
    module.batch_sizes = sizes  # type: ignore[assignment]
    if all(isinstance(size, int) for size in shape):
        module.image_shape = shape  # type: ignore[assignment]
    return module


@contextlib.contextmanager
def _saying_why(path: Path) -> Iterator[None]:
    """What torch raises, of many kinds, becomes a ValueError. Its reason it puts into its log, as a traceback, of which
    the last line says most; the log is not shown."""
    said: list[str] = []

    def keep(record: logging.LogRecord) -> bool:
        said.extend(record.getMessage().strip().splitlines()[-1:])
        return False

    logger = logging.getLogger("torch.export")
    logger.addFilter(keep)
    try:
        yield
    except Exception as error:
        why = said[-1] if said else one_line(error)
        raise ValueError(f"{path} cannot be loaded by torch.export of torch {torch.__version__}: {why}") from error
    finally:
        logger.removeFilter(keep)


def _input_of(path: Path, program: torch.export.ExportedProgram) -> Tensor:
    """The one input, as it was described in the export."""
    inputs = [node for node in program.graph.nodes if node.name in program.graph_signature.user_inputs]
    if len(inputs) != 1 or not isinstance(inputs[0].meta.get("val"), Tensor):
        raise ValueError(f"{path} takes {len(inputs)} inputs; expected one, the images (B, *image_shape)")
    described: Tensor = inputs[0].meta["val"]
    return described


def _images_of(path: Path, program: torch.export.ExportedProgram) -> tuple[tuple[Any, ...], range]:
    """The shape of an image, and the numbers of images that it takes at a time."""
    shape = _input_of(path, program).shape
    if not shape or isinstance(shape[0], int):
        raise ValueError(
            f"{path} was exported for inputs of shape {tuple(shape)} only; the batch dimension must be dynamic: "
            f"torch.export.export(model, (images,), dynamic_shapes=({{0: torch.export.Dim('batch')}},))"
        )
    size = shape[0].node.expr
    symbols = list(size.free_symbols)
    step = size.coeff(symbols[0]) if len(symbols) == 1 else 0
    if len(symbols) != 1 or size != step * symbols[0]:
        raise ValueError(
            f"{path} takes batches of {size} images; expected any number, or multiples of one: Dim('batch')"
        )
    allowed = program.range_constraints.get(symbols[0])
    lowest = max(1, int(allowed.lower)) if allowed is not None else 1
    bounded = allowed is not None and bool(allowed.upper.is_Integer)
    highest = int(allowed.upper) if bounded else sys.maxsize // int(step) - 1
    return tuple(shape[1:]), range(lowest * int(step), highest * int(step) + 1, int(step))


def _check_is_float32(path: Path, program: torch.export.ExportedProgram) -> None:
    dtypes = [_input_of(path, program).dtype, *(tensor.dtype for tensor in program.state_dict.values())]
    other = next((dtype for dtype in dtypes if dtype.is_floating_point and dtype != torch.float32), None)
    if other is not None:
        raise ValueError(
            f"{path} was exported in {str(other).removeprefix('torch.')}; the forward passes are in float32: "
            f"call model.float() before torch.export.export (--precision bfloat16 rounds them where that is wanted)"
        )

"""Models that torch.export wrote, `.pt2`: programs."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterator
from pathlib import Path

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
    _check_batch_is_dynamic(path, program)
    _check_is_float32(path, program)
    with _saying_why(path):
        if torch.device(device).type != "cpu":
            from torch.export.passes import move_to_device_pass  # not in the oldest versions of torch that we support

            program = move_to_device_pass(program, device)
        return program.module()


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


def _check_batch_is_dynamic(path: Path, program: torch.export.ExportedProgram) -> None:
    shape = _input_of(path, program).shape
    if not shape or isinstance(shape[0], int):
        raise ValueError(
            f"{path} was exported for inputs of shape {tuple(shape)} only; the batch dimension must be dynamic: "
            f"torch.export.export(model, (images,), dynamic_shapes=({{0: torch.export.Dim('batch')}},))"
        )


def _check_is_float32(path: Path, program: torch.export.ExportedProgram) -> None:
    dtypes = [_input_of(path, program).dtype, *(tensor.dtype for tensor in program.state_dict.values())]
    other = next((dtype for dtype in dtypes if dtype.is_floating_point and dtype != torch.float32), None)
    if other is not None:
        raise ValueError(
            f"{path} was exported in {str(other).removeprefix('torch.')}; the forward passes are in float32: "
            f"call model.float() before torch.export.export (--precision bfloat16 rounds them where that is wanted)"
        )

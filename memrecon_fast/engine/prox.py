"""The autoencoder as the proximal step (16): rows of pixels in, rows of pixels out."""

from __future__ import annotations

import contextlib
import itertools
import math
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from memrecon_fast.common.errors import is_out_of_memory, one_line
from memrecon_fast.common.outputs import Output, OutputError, find_output
from memrecon_fast.common.typing import Autoencoder
from memrecon_fast.engine.precision import in_format
from memrecon_fast.ops.state import ALIGNMENT, check_in_memory

TRIAL_ROWS = 16
"""In the batch that an autoencoder is tried on."""
_VECTOR_ENTRIES = {"AVX512": 32}
_FEWEST_VECTOR_ENTRIES = 16
MIN_ROWS_ON_GPU = 16
"""With fewer, a forward pass on a GPU takes as long."""


class Prox:
    """f on rows [rows, d]; d runs over the pixels in the order that suits f, channels-last for some."""

    def __init__(
        self,
        autoencoder: Autoencoder,
        image_shape: Sequence[int],
        device: torch.device,
        channels_last: bool = False,
        original: Autoencoder | None = None,
    ) -> None:
        self.image_shape = tuple(image_shape)
        self.device = device
        self.pixels = math.prod(self.image_shape)
        self.row_multiple = vector_entries()
        """On a CPU, the autoencoder is given a multiple of this many rows, see `row_multiple_of`."""
        self.bytes_per_row = 0
        """An estimate of the memory that f takes for one more row: that of all tensors it computes."""
        self.why_not_captured = ""
        """Why f cannot be part of a CUDA Graph, where that is known beforehand."""
        self._original = autoencoder if original is None else original
        """What the user gave; `autoencoder` may be that in another number format."""
        self._weights = _fingerprint(self._original)
        self._autoencoder = autoencoder
        self._channels_last = channels_last
        self._output: Output | None = None
        """Which of several outputs is the reconstruction; found in the first call."""

    def __call__(self, s: Tensor) -> Tensor:
        """f(s): float32 contiguous [rows, d], aligned, never in the memory of `s`."""
        v = self.to_rows(self.apply(self.as_images(s))).float()
        return v.clone() if _share_memory(v, s) or v.data_ptr() % ALIGNMENT else v

    def apply(self, images: Tensor) -> Tensor:
        """What the autoencoder answers: the reconstructions, where it returns more than them.

        Raises TypeError or ValueError where that, or what it was given, is not in memory (any more).
        """
        answer: Any = self._autoencoder(images)
        if not isinstance(answer, Tensor):
            self._output = self._output or find_output(answer, images)
            answer = self._output.of(answer)
        output: Tensor = answer
        if output.layout is torch.strided:
            output = (output if type(output) is Tensor else output.as_subclass(Tensor)).resolve_neg()
            check_in_memory("the autoencoder's output", output)
        check_in_memory("the autoencoder's input", images)
        return output

    def block_sizes(self, slots: int) -> list[int]:
        """The numbers of rows that the autoencoder is given, ascending; the last one is for this many slots or more.

        On a CPU all multiples of `row_multiple`. On a GPU, where another number of rows may mean another kernel and
        other last bits, and where each number is captured for itself: the number of slots, its half, and so on.
        """
        if self.device.type != "cuda":
            return list(range(self.row_multiple, slots + self.row_multiple, self.row_multiple))
        sizes = [slots]
        while sizes[0] > MIN_ROWS_ON_GPU:
            sizes.insert(0, -(-sizes[0] // (2 * MIN_ROWS_ON_GPU)) * MIN_ROWS_ON_GPU)
        return sizes

    def check_unchanged(self) -> None:
        """Raise ValueError where the autoencoder is in training mode, or its weights are not those it was made with."""
        _check_mode(self._original)
        now = _fingerprint(self._original)
        for name in {**self._weights, **now}:
            if self._weights.get(name) != now.get(name):
                raise ValueError(
                    f"the autoencoder's {name} was changed since the solver was prepared: prepare it again"
                )

    def to_rows(self, images: Tensor) -> Tensor:
        """(B, *image_shape) as contiguous rows [B, d], on the same device."""
        if self._channels_last:
            images = images.permute(0, 2, 3, 1)
        return images.reshape(len(images), self.pixels).contiguous()

    def to_images(self, rows: Tensor) -> Tensor:
        """Rows [B, d] as contiguous images (B, *image_shape): a view where the order of the pixels is the same."""
        return self.as_images(rows).contiguous()

    def as_images(self, rows: Tensor) -> Tensor:
        """Rows [B, d] as the images (B, *image_shape) that f is given, a view."""
        if self._channels_last:
            channels, height, width = self.image_shape
            return rows.view(-1, height, width, channels).permute(0, 3, 1, 2)
        return rows.view(-1, *self.image_shape)


def vector_entries() -> int:
    """How many float32 entries torch's vector loops take at a time on this processor, as torch uses it."""
    return _VECTOR_ENTRIES.get(torch.backends.cpu.get_cpu_capability(), _FEWEST_VECTOR_ENTRIES)


def row_multiple_of(sizes: Sequence[int], rows: int, vector: int) -> int:
    """Of how many rows the autoencoder is to be given a multiple on a CPU: 4, 8, … or `vector`.

    With that, a row of a forward pass is bit-identical whatever its position, its neighbours and the number of rows.
    Linear layers and convolutions need a multiple of 4. But torch's vector code for Softplus, Sigmoid and their like
    rounds differently from the scalar code for what is left over at the end of a tensor: the number of entries in
    every tensor must be a multiple of `vector`. On several threads each takes a share of a large tensor: there it holds
    for such activations where the shares are multiples of `vector` entries, as they are for the usual widths. Tested
    under every instruction set that the processor has (tests/engine/test_prox.py).

    sizes: the number of entries of each tensor that is computed from so many `rows`; empty where they are not known.
    """
    multiple = 4
    while multiple < vector and not (sizes and all(size * multiple % (vector * rows) == 0 for size in sizes)):
        multiple *= 2
    return multiple


def device_of(autoencoder: Autoencoder, default: torch.device) -> torch.device:
    """The device of the autoencoder's first parameter or buffer, `default` where it has none."""
    if isinstance(autoencoder, nn.Module):
        for tensor in (*autoencoder.parameters(), *autoencoder.buffers()):
            return tensor.device
    if default.type == "cuda" and default.index is None:
        return torch.device("cuda", torch.cuda.current_device())
    return default


def make_prox(
    autoencoder: Autoencoder, image_shape: Sequence[int], device: torch.device, number_format: str = "float32"
) -> Prox:
    """The autoencoder as the proximal step, tried on a small batch before any work starts.

    number_format: of its forward passes, see `precision`. A module with 2d convolutions is given channels-last images,
    which they are faster on, if it can take them.

    Raises TypeError or ValueError where f is not callable, is in training mode, has parameters that are not float32,
    fails, returns another shape or dtype, or changes its input in place, or the device has no such number format.
    """
    if not callable(autoencoder):
        raise TypeError(f"autoencoder must be callable, not {type(autoencoder).__name__}")
    _check_mode(autoencoder)
    if isinstance(autoencoder, nn.Module):
        for name, parameter in autoencoder.named_parameters():
            if parameter.dtype != torch.float32:
                raise TypeError(
                    f"autoencoder must be float32; its parameter {name} is {parameter.dtype}: call .float()"
                )
    layouts = [True, False] if len(image_shape) == 3 and _has_2d_convolutions(autoencoder) else [False]
    ways = itertools.product(in_format(autoencoder, number_format, device), layouts)
    candidates = [Prox(way, image_shape, device, layout, autoencoder) for way, layout in ways]
    for prox in candidates[:-1]:
        with contextlib.suppress(ValueError):  # it uses .view(), say, and is to be given contiguous images
            _try(prox)
            return prox
    _try(candidates[-1])
    return candidates[-1]


def _check_mode(autoencoder: Autoencoder) -> None:
    if isinstance(autoencoder, nn.Module) and _is_training(autoencoder):
        raise ValueError("autoencoder is in training mode; call autoencoder.eval() first")


def _is_training(module: nn.Module) -> bool:
    if isinstance(module, torch.fx.GraphModule):  # an exported program has the flag of training, but no such mode
        return False
    return module.training or any(_is_training(child) for child in module.children())


def _fingerprint(autoencoder: Autoencoder) -> dict[str, tuple[object, ...]]:
    """By the name of each parameter and buffer: where it is, what it looks like, how often the parameter was written.

    What a forward pass writes into a buffer is the module's own business.
    """
    if not isinstance(autoencoder, nn.Module):
        return {}
    looks: dict[str, tuple[object, ...]] = {
        name: (tensor.data_ptr(), tensor.shape, tensor.dtype) for name, tensor in autoencoder.named_buffers()
    }
    for name, tensor in autoencoder.named_parameters():
        written = None if tensor.is_inference() else tensor._version
        looks[name] = (tensor.data_ptr(), tensor.shape, tensor.dtype, written)
    return looks


def _try(prox: Prox) -> None:
    """Call f once; find out how many rows it is to be given, and how much memory it takes."""
    count = TRIAL_ROWS
    shape = (count, *prox.image_shape)
    random = torch.Generator("cpu").manual_seed(0)
    rows = torch.rand(count, prox.pixels, generator=random, dtype=torch.float32, device="cpu")
    rows = rows.mul_(3).sub_(1).to(prox.device)  # what enters f may leave [0, 1]
    before = rows.clone()
    try:
        with torch.inference_mode(), _Sizes() as computed:
            returned = prox.apply(prox.as_images(rows))
    except OutputError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise ValueError(f"autoencoder fails on a batch of shape {shape}: {one_line(error)}") from error
    if not returned.is_floating_point():
        raise TypeError(f"autoencoder must return a floating-point tensor, not {returned.dtype}")
    if returned.shape != shape:
        raise ValueError(f"autoencoder must return the shape it is given, {shape}, not {tuple(returned.shape)}")
    if not torch.equal(rows, before):
        raise ValueError("autoencoder changes its input in place; give it a first layer that does not")
    vector = vector_entries() if prox.device.type == "cpu" else TRIAL_ROWS  # a GPU's bits depend on no processor
    prox.row_multiple = row_multiple_of(computed.sizes, count, vector)
    prox.bytes_per_row = 4 * sum(computed.sizes) // count
    if prox.device.type == "cuda":
        prox.why_not_captured = _why_not_captured(prox, rows)


def _why_not_captured(prox: Prox, rows: Tensor) -> str:
    """Whether f waits for the device, which a capture does not survive, even in a second call; empty if not."""
    with torch.inference_mode():
        prox.apply(prox.as_images(rows))  # what is compiled in a first call may wait
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch calls this mode a prototype
        torch.cuda.set_sync_debug_mode("error")
    try:
        with torch.inference_mode():
            prox.apply(prox.as_images(rows))
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise
        return one_line(error)
    finally:
        torch.cuda.set_sync_debug_mode(before)
    return ""


class _Sizes(TorchFunctionMode):
    """The number of entries of every tensor that torch's functions return."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self.sizes.append(result.numel())
        return result


def _has_2d_convolutions(autoencoder: Autoencoder) -> bool:
    kinds = (nn.Conv2d, nn.ConvTranspose2d)
    return isinstance(autoencoder, nn.Module) and any(isinstance(module, kinds) for module in autoencoder.modules())


def _share_memory(a: Tensor, b: Tensor) -> bool:
    return a.untyped_storage().data_ptr() == b.untyped_storage().data_ptr()

"""The autoencoder as the proximal step (16): rows of pixels in, rows of pixels out."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

Autoencoder = Callable[[Tensor], Tensor]
ROW_MULTIPLES = (4, 16)
"""The autoencoder is given a multiple of 4 or of 16 rows. With that, on a CPU, a row of a forward pass is bit-identical
whatever its position, its neighbours and the number of rows. Linear layers and convolutions need a multiple of 4. But
torch's vector code for Softplus, Sigmoid and their like rounds differently from the scalar code for what is left over
at the end of a tensor: where some tensor has no multiple of 4 entries per row, it takes 16 rows to leave nothing over.
On several threads each takes a share of a large tensor: there it holds for such activations where the shares are
multiples of 16 entries, as they are for the usual widths. Measured with AVX2."""


class Prox:
    """f on rows [rows, d]; d runs over the pixels in the order that suits f, channels-last for some."""

    def __init__(
        self, autoencoder: Autoencoder, image_shape: Sequence[int], device: torch.device, channels_last: bool = False
    ) -> None:
        self.image_shape = tuple(image_shape)
        self.device = device
        self.pixels = math.prod(self.image_shape)
        self.row_multiple = max(ROW_MULTIPLES)
        """The autoencoder is given a multiple of this many rows."""
        self._autoencoder = autoencoder
        self._channels_last = channels_last

    def __call__(self, s: Tensor) -> Tensor:
        """f(s): float32 contiguous [rows, d], never in the memory of `s`."""
        v = self._to_rows(self._autoencoder(self.as_images(s))).float()
        return v.clone() if _share_memory(v, s) else v

    def round_up(self, rows: int) -> int:
        """`rows` rounded up to what the autoencoder is given."""
        return -(-rows // self.row_multiple) * self.row_multiple

    def to_rows(self, images: Tensor) -> Tensor:
        """(B, *image_shape) as contiguous rows [B, d] on the device of the autoencoder."""
        return self._to_rows(images.to(self.device))

    def to_images(self, rows: Tensor) -> Tensor:
        """Rows [B, d] as contiguous images (B, *image_shape), in memory of their own."""
        return self.as_images(rows).clone(memory_format=torch.contiguous_format)

    def as_images(self, rows: Tensor) -> Tensor:
        """Rows [B, d] as the images (B, *image_shape) that f is given, a view."""
        if self._channels_last:
            channels, height, width = self.image_shape
            return rows.view(-1, height, width, channels).permute(0, 3, 1, 2)
        return rows.view(-1, *self.image_shape)

    def _to_rows(self, images: Tensor) -> Tensor:
        if self._channels_last:
            images = images.permute(0, 2, 3, 1)
        return images.reshape(len(images), self.pixels).contiguous()


def device_of(autoencoder: Autoencoder, default: torch.device) -> torch.device:
    """The device of the autoencoder's first parameter or buffer, `default` where it has none."""
    if isinstance(autoencoder, nn.Module):
        for tensor in (*autoencoder.parameters(), *autoencoder.buffers()):
            return tensor.device
    return default


def make_prox(autoencoder: Autoencoder, image_shape: Sequence[int], device: torch.device) -> Prox:
    """The autoencoder as the proximal step, tried on a small batch before any work starts.

    A module with 2d convolutions is given channels-last images, which they are faster on, if it can take them.

    Raises TypeError or ValueError where f is not callable, is in training mode, has parameters that are not float32,
    fails, returns another shape or dtype, or changes its input in place.
    """
    if not callable(autoencoder):
        raise TypeError(f"autoencoder must be callable, not {type(autoencoder).__name__}")
    if isinstance(autoencoder, nn.Module):
        # an exported program has the flag of training, but no such mode
        if not isinstance(autoencoder, torch.fx.GraphModule) and any(
            module.training for module in autoencoder.modules()
        ):
            raise ValueError("autoencoder is in training mode; call autoencoder.eval() first")
        for name, parameter in autoencoder.named_parameters():
            if parameter.dtype != torch.float32:
                raise TypeError(
                    f"autoencoder must be float32; its parameter {name} is {parameter.dtype}: call .float()"
                )
    if len(image_shape) == 3 and _has_2d_convolutions(autoencoder):
        with contextlib.suppress(ValueError):  # it uses .view(), say: then the images are contiguous
            prox = Prox(autoencoder, image_shape, device, channels_last=True)
            _try(prox, autoencoder)
            return prox
    prox = Prox(autoencoder, image_shape, device)
    _try(prox, autoencoder)
    return prox


def _try(prox: Prox, autoencoder: Autoencoder) -> None:
    """Call f once; find out how many rows it is to be given."""
    count = max(ROW_MULTIPLES)
    shape = (count, *prox.image_shape)
    random = torch.Generator("cpu").manual_seed(0)
    rows = torch.rand(count, prox.pixels, generator=random, dtype=torch.float32, device="cpu")
    rows = rows.mul_(3).sub_(1).to(prox.device)  # what enters f may leave [0, 1]
    before = rows.clone()
    try:
        with torch.inference_mode(), _Sizes() as computed:
            returned = autoencoder(prox.as_images(rows))
    except Exception as error:
        reason = str(error).strip().split("\n")[0]
        raise ValueError(f"autoencoder fails on a batch of shape {shape}: {type(error).__name__}: {reason}") from error
    if not isinstance(returned, Tensor) or not returned.is_floating_point():
        kind = returned.dtype if isinstance(returned, Tensor) else type(returned).__name__
        raise TypeError(f"autoencoder must return a floating-point tensor, not {kind}")
    if returned.shape != shape:
        raise ValueError(f"autoencoder must return the shape it is given, {shape}, not {tuple(returned.shape)}")
    if not torch.equal(rows, before):
        raise ValueError("autoencoder changes its input in place; give it a first layer that does not")
    if computed.sizes and all(size % (4 * count) == 0 for size in computed.sizes):
        prox.row_multiple = min(ROW_MULTIPLES)


class _Sizes(TorchFunctionMode):
    """The number of entries of every tensor that torch's functions return."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: set[int] = set()

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self.sizes.add(result.numel())
        return result


def _has_2d_convolutions(autoencoder: Autoencoder) -> bool:
    kinds = (nn.Conv2d, nn.ConvTranspose2d)
    return isinstance(autoencoder, nn.Module) and any(isinstance(module, kinds) for module in autoencoder.modules())


def _share_memory(a: Tensor, b: Tensor) -> bool:
    return a.untyped_storage().data_ptr() == b.untyped_storage().data_ptr()

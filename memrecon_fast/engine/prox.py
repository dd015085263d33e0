"""The autoencoder as the proximal step (16): rows of pixels in, rows of pixels out."""

from __future__ import annotations

import contextlib
import itertools
import math
import re
import warnings
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from memrecon_fast.common.errors import AutoencoderChangedError, is_out_of_memory, note_autoencoder, one_line
from memrecon_fast.common.outputs import Output, find_output
from memrecon_fast.common.typing import Autoencoder
from memrecon_fast.engine.function import (
    REPEATED,
    by,
    check_function,
    distance,
    is_rounding,
    private_randomness,
    subset,
    trial_images,
)
from memrecon_fast.engine.packed import Packed, weights_of
from memrecon_fast.engine.precision import in_format, unit_of, with_gradients
from memrecon_fast.engine.stated import check_shape, stated_batch_sizes
from memrecon_fast.engine.three_products import not_replaced
from memrecon_fast.engine.transfer import working_on
from memrecon_fast.engine.trial import TRIAL_ROWS, call_first, where_it_works, why_not_captured
from memrecon_fast.ops.state import ALIGNMENT, check_in_memory

_VECTOR_ENTRIES = {"AVX512": 32}
_FEWEST_VECTOR_ENTRIES = 16
MIN_ROWS_ON_GPU = 16
"""With fewer, a forward pass on a GPU takes as long."""
TIMED_ROWS = 64
"""In the passes that tell which layout of the images is faster on a GPU, if f takes so many ..."""
FASTER = 0.9
"""... and so much of the time of channels-last ones may contiguous ones take to be preferred."""
CHECKS_AT_THE_END = 12
"""Calls that see whether the autoencoder answers as it did: it may be random only now and then."""


class Prox:
    """f on rows [rows, d]; d runs over the pixels in the order that suits f, channels-last for some."""

    def __init__(
        self,
        autoencoder: Autoencoder,
        image_shape: Sequence[int],
        device: torch.device,
        channels_last: bool = False,
        original: Autoencoder | None = None,
        packed: Packed | None = None,
    ) -> None:
        self.image_shape = tuple(image_shape)
        self.device = device
        self.pixels = math.prod(self.image_shape)
        self.row_multiple = vector_entries()
        """On a CPU, the autoencoder is given a multiple of this many rows, see `row_multiple_of`."""
        self.bytes_per_row = 0
        """An estimate of the memory that f takes for one more row: that of all tensors it computes."""
        self.unit = torch.finfo(torch.float32).eps
        """Of the coarsest number format that f computes in: the distance from 1 to the next number."""
        self.number_format = "float32"
        """Of its products, see `precision`."""
        self.products: tuple[str, ...] = ()
        """The names of torch's functions that multiply matrices in f, but for products of halves."""
        self.why_not_captured = ""
        """Why f cannot be part of a CUDA Graph, where that is known beforehand."""
        self._original = autoencoder if original is None else original
        """What the user gave; `autoencoder` may be that in another number format."""
        self.batch_sizes = stated_batch_sizes(self._original)
        """The numbers of rows that it takes."""
        self._weights = _fingerprint(self._original)
        self._own_business: set[str] = set()
        """The names of buffers that a forward pass replaces."""
        self._autoencoder = autoencoder
        self._packed = packed
        self._channels_last = channels_last
        self._output: Output | None = None
        """Which of several outputs is the reconstruction; found in the first call."""
        self._seen: list[tuple[Tensor, Tensor]] = []
        """Rows [n, d], and what f answered to them."""

    def __call__(self, s: Tensor) -> Tensor:
        """f(s): float32 contiguous [rows, d], aligned, never in the memory of `s`.

        f is given more rows, of zeros, where these are no number of rows that it is to be given.
        """
        enough = self.fitting_rows(len(s))
        if enough <= len(s):
            return self._answer(s)
        rows = s.new_zeros(enough, self.pixels)
        rows[: len(s)] = s
        return self._answer(rows)[: len(s)]

    def try_again(self, s: Tensor) -> Tensor:
        """f(s) for a check, of just these rows; where f fails, a ValueError says so."""
        try:
            return self._answer(s)
        except Exception as error:
            if is_out_of_memory(error):
                raise
            raise ValueError(
                f"autoencoder fails on a batch of {len(s)} images, though not on the first: {one_line(error)}. If it "
                f"takes certain numbers of images alone, say so in its attribute batch_sizes, a range"
            ) from error

    def _answer(self, s: Tensor) -> Tensor:
        v = self.to_rows(self.apply(self.as_images(s))).float()
        return v.clone() if _share_memory(v, s) or v.data_ptr() % ALIGNMENT else v

    @property
    def packed_weights(self) -> int:
        """Of so many linear layers the weights are packed, see `packed`."""
        return len(self._packed or ())

    def apply(self, images: Tensor) -> Tensor:
        """What the autoencoder answers: the reconstructions, where it returns more than them.

        Raises as `call`, and TypeError or ValueError where the answer, or what it was given, is not in memory (any
        more).
        """
        answer = self.call(images).detach()
        if answer.layout is torch.strided:
            answer = (answer if type(answer) is Tensor else answer.as_subclass(Tensor)).resolve_neg()
            check_in_memory("the autoencoder's output", answer)
        check_in_memory("the autoencoder's input", images)
        return answer

    def call(self, images: Tensor) -> Tensor:
        """What the autoencoder answers as it is, so that it can be differentiated.

        What it raises passes through, with a note of where it came from; what is no Exception, such as that of
        `sys.exit`, as a RuntimeError.
        """
        try:
            with self._packed or contextlib.nullcontext():
                returned: Any = self._autoencoder(images)
        except Exception as error:
            note_autoencoder(error)
            raise
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            ended = RuntimeError(f"the autoencoder tried to end the program ({one_line(error)})")
            note_autoencoder(ended)
            raise ended from error
        if not isinstance(returned, Tensor):
            self._output = self._output or find_output(returned, images)
            returned = self._output.of(returned)
        answer: Tensor = returned
        return answer

    def block_sizes(self, slots: int) -> Sequence[int]:
        """The numbers of rows that the autoencoder is given, ascending; the last one is for this many slots, or the
        most that it takes.

        On a CPU all multiples of `row_multiple`. On a GPU, where another number of rows may mean another kernel and
        other last bits, and where each number is captured for itself: the number of slots, its half, and so on.
        """
        if self.device.type != "cuda":
            return range(self.fitting_rows(1), self.fitting_rows(slots) + 1, self._step)
        sizes = [self.fitting_rows(slots)]
        while sizes[0] > MIN_ROWS_ON_GPU:
            sizes.insert(0, -(-sizes[0] // (2 * MIN_ROWS_ON_GPU)) * MIN_ROWS_ON_GPU)
        return [size for size in sizes if size in self.batch_sizes]

    @property
    def most_rows(self) -> int:
        """The autoencoder is never given more rows at a time."""
        return self.fitting_rows(self.batch_sizes[-1])

    @property
    def _step(self) -> int:
        """Between two numbers of rows."""
        multiple = 1 if self.device.type == "cuda" else self.row_multiple
        return math.lcm(multiple, self.batch_sizes.step)

    def fitting_rows(self, rows: int) -> int:
        """The smallest number of rows at a time that is enough for so many, or else the largest one."""
        sizes, step = self.batch_sizes, self._step
        first, last = -(-sizes[0] // step) * step, sizes[-1] // step * step
        if first not in sizes:  # it takes no such number: then always the same one
            return sizes[-1]
        return min(max(first, -(-rows // step) * step), last)

    def check_unchanged(self) -> None:
        """Raise ValueError where the autoencoder is in training mode, or its weights are not those it was made with."""
        _check_mode(self._original)
        changed = next(self._changed(), None)
        if changed is not None:
            raise ValueError(f"the autoencoder's {changed} was changed since the solver was prepared: prepare it again")

    def _changed(self) -> Iterator[str]:
        """The names of the parameters and buffers that are not what they were."""
        now = _fingerprint(self._original)
        for name in {**self._weights, **now}:
            if name not in self._own_business and self._weights.get(name) != now.get(name):
                yield name

    def note_changes(self) -> None:
        """After a first call: raise ValueError where it changed a parameter. Buffers that it replaced, such as a
        counter, are its own business: it is by the answers that a change is noticed."""
        parameters = dict(self._original.named_parameters()) if isinstance(self._original, nn.Module) else {}
        for name in self._changed():
            if name in parameters:
                raise ValueError(f"a forward pass changes the autoencoder's {name}: it must leave its parameters alone")
            self._own_business = {*self._own_business, name}

    def remember(self, rows: Tensor, answers: Tensor) -> None:
        """Rows [n, d] and what f answered to them, for `check_same`: the first four of those that come first, and of
        those that come next."""
        if len(self._seen) < 2 and len(rows):
            self._seen.append((rows[:4].clone(), answers[:4].clone()))

    def check_same(self) -> None:
        """Raise AutoencoderChangedError where f does not answer as it did when `remember` was called, or its weights
        were changed since it was made. It is called a few times, as it may be random only now and then."""
        changed = next(self._changed(), None)
        if changed is not None:
            raise AutoencoderChangedError(f"the autoencoder's {changed} was changed while images were recovered")
        if not self._seen:
            return
        try:
            self._check_answers()
        except AutoencoderChangedError:
            raise
        except Exception as error:
            raise AutoencoderChangedError(
                f"the autoencoder fails on images that it has answered to before: {one_line(error)}"
            ) from error

    def _check_answers(self) -> None:
        known = torch.cat([answers for _, answers in self._seen])
        count = len(known)
        rows = torch.zeros(self.fitting_rows(count), self.pixels, dtype=torch.float32, device=self.device)
        with self._with_weights_as_they_are(), working_on(self.device), private_randomness(self.device) as reseed:
            count = min(count, len(rows))
            rows[:count].copy_(torch.cat([rows for rows, _ in self._seen])[:count])
            now = self(rows)[:count].clone()
            apart = distance(known[:count], now)
            if not is_rounding(apart, now, self, rows, self.unit):
                raise AutoencoderChangedError(
                    f"the autoencoder does not answer as it did before ({by(apart)}): it is random at times, or a "
                    f"forward pass changes it"
                )
            for seed in range(1, CHECKS_AT_THE_END):
                reseed(seed)
                if (apart := distance(now, self(rows)[:count])) > REPEATED[self.device.type]:
                    raise AutoencoderChangedError(
                        f"the autoencoder answers differently to the same images by now ({by(apart)}): it is random at "
                        f"times"
                    )

    @contextlib.contextmanager
    def _with_weights_as_they_are(self) -> Iterator[None]:
        """Packed ones would answer as before, also where torch does not know that the weights were changed."""
        packed, self._packed = self._packed, None
        try:
            yield
        finally:
            self._packed = packed

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


def check_autoencoder(autoencoder: Autoencoder) -> None:
    """All that can be said without a call: raise TypeError or ValueError where it is not callable, is in training mode,
    or has parameters that are not float32, or have no values."""
    if not callable(autoencoder):
        raise TypeError(f"autoencoder must be callable, not {type(autoencoder).__name__}")
    if not isinstance(autoencoder, nn.Module):
        return
    _check_mode(autoencoder)
    for kind, tensors in (("parameter", autoencoder.named_parameters()), ("buffer", autoencoder.named_buffers())):
        for name, tensor in tensors:
            if is_lazy(tensor):
                raise ValueError(
                    f"autoencoder is lazy: its {kind} {name} has no shape yet. Call it once on a batch of images first"
                )
            if tensor.is_meta:
                raise ValueError(
                    f"autoencoder's {kind} {name} is on the device 'meta', without values: give it memory with "
                    f".to_empty(device='cpu'), and load its weights"
                )
    for name, parameter in autoencoder.named_parameters():
        kind_of_number = parameter.dtype.to_real() if parameter.is_complex() else parameter.dtype
        if kind_of_number.is_floating_point and kind_of_number != torch.float32:
            raise TypeError(f"autoencoder must be float32; its parameter {name} is {parameter.dtype}: call .float()")


def make_prox(
    autoencoder: Autoencoder, image_shape: Sequence[int], device: torch.device, number_format: str = "float32"
) -> Prox:
    """The autoencoder as the proximal step, tried on a small batch before any work starts.

    number_format: of its forward passes, see `precision`. A module with 2d convolutions is given channels-last images,
    which they are faster on, if it can take them (on a GPU both are timed once, see `_faster`); one that needs
    gradients inside its forward pass is given them.

    Raises TypeError or ValueError where f is not callable, is in training mode, has parameters that are not float32 or
    without values, states another shape, fails, returns another shape or dtype, changes its input in place or its
    parameters, or is no function of each image alone; or where the device or the model cannot have such a number
    format. Warns (RuntimeWarning) of products that "float32x3" leaves in float32.
    """
    check_autoencoder(autoencoder)
    check_shape(autoencoder, image_shape)
    with working_on(device), private_randomness(device):
        prox, images = _tried(autoencoder, image_shape, device, number_format)
        # in float32, as what another batch costs hides less there
        exact = prox if number_format == "float32" else _tried(autoencoder, image_shape, device, "float32")[0]
        rows = prox.to_rows(images)
        if number_format == "float32x3":
            prox.unit = max(exact.unit, unit_of(number_format))  # the float16 tensors are halves of better numbers
        check_function(exact.try_again, exact.to_rows(images), prox.batch_sizes, exact.unit)
        chosen = subset(len(rows), prox.batch_sizes)
        prox.remember(rows[chosen], prox.try_again(rows[chosen]))
        if device.type == "cuda":
            prox.why_not_captured = why_not_captured(prox.apply, prox.as_images(rows))
    if number_format == "float32x3":
        _warn_of_other_products(autoencoder, prox.products)
    if device.type == "cpu" and prox.most_rows % prox.row_multiple:
        warnings.warn(
            f"the model takes {prox.most_rows} images at a time, no multiple of {prox.row_multiple}: the last bits of "
            f"an image's result may depend on its place among others",
            RuntimeWarning,
            stacklevel=2,
        )
    return prox


def _tried(
    autoencoder: Autoencoder, image_shape: Sequence[int], device: torch.device, number_format: str
) -> tuple[Prox, Tensor]:
    """The best of the ways to call the autoencoder that works, and the images that it was tried on."""
    sizes = stated_batch_sizes(autoencoder)
    fitting = bisect_right(sizes, TRIAL_ROWS)
    images = trial_images(sizes[fitting - 1] if fitting else sizes[0], image_shape).to(device)
    layouts = [True, False] if len(image_shape) == 3 and _has_2d_convolutions(autoencoder) else [False]
    plain = in_format(autoencoder, number_format, device)
    weights = weights_of(autoencoder) if device.type == "cpu" and number_format == "float32" else []
    packed = Packed(weights) if weights else None
    timed = device.type == "cuda" and len(layouts) > 1
    for ways, last in ((plain, False), ([with_gradients(way) for way in plain], True)):
        for way, layout in itertools.product(ways, layouts):
            prox = Prox(way, image_shape, device, layout, autoencoder, packed)
            try:
                _try(prox, images, number_format)
                if timed and layout:
                    prox = _faster(prox, Prox(way, image_shape, device, False, autoencoder), images, number_format)
                return prox, images
            except ValueError as error:  # it uses .view(), say, and is to be given contiguous images
                failure = error
        if last or not _is_about_gradients(failure.__cause__):
            break
    if failure.__cause__ is None:
        raise failure
    raise ValueError(f"{failure}{where_it_works(prox.apply, images)}") from failure.__cause__


def _faster(
    prox: Prox,
    other: Prox,
    images: Tensor,
    number_format: str,
    measure: Callable[[Prox, Tensor], float] | None = None,
) -> Prox:
    """`prox`, or another layout of the same autoencoder that is not tried yet, where that is faster by a tenth.

    Which of two kernels of a library is faster differs from GPU to GPU, and with the number format; as last bits depend
    on it, one that gains less is not worth it that two runs may differ.
    """
    measure = measure or milliseconds_of_pass
    try:
        _try(other, images, number_format)
        some = images[torch.arange(prox.fitting_rows(TIMED_ROWS)) % len(images)]
        times = [measure(one, one.to_rows(some)) for one in (prox, other)]
    except Exception as error:  # it takes no contiguous images, say, or not so many
        if isinstance(error, ValueError) or is_out_of_memory(error):
            return prox
        raise
    return other if times[1] < FASTER * times[0] else prox


def milliseconds_of_pass(prox: Prox, rows: Tensor) -> float:
    """On a GPU: of a forward pass, the shortest of some after the first ones."""
    times = []
    for number in range(6):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record(torch.cuda.current_stream(prox.device))
        prox.try_again(rows)
        end.record(torch.cuda.current_stream(prox.device))
        end.synchronize()
        if number > 1:
            times.append(float(begin.elapsed_time(end)))
    return min(times)


def _try(prox: Prox, images: Tensor, number_format: str) -> None:
    """Call f once; find out how many rows it is to be given, and how much memory it takes."""
    count = len(images)
    tried = call_first(prox.apply, prox.as_images(prox.to_rows(images)))
    prox.note_changes()
    vector = vector_entries() if prox.device.type == "cpu" else TRIAL_ROWS  # a GPU's bits depend on no processor
    prox.row_multiple = row_multiple_of(tried.sizes, count, vector)
    prox.bytes_per_row = 4 * sum(tried.sizes) // count
    prox.unit = max(tried.unit, unit_of(number_format))
    prox.number_format = number_format
    prox.products = tried.products


def _warn_of_other_products(autoencoder: Autoencoder, functions: tuple[str, ...]) -> None:
    """Say what multiplies, and is no product of halves."""
    layers = not_replaced(autoencoder)
    parts = [f"the layers {', '.join(layers)}"] if layers else []
    parts += [f"calls of {', '.join(functions)}"] if functions else []
    if parts:
        warnings.warn(
            f"precision 'float32x3' is of linear layers and 2d convolutions: {' and '.join(parts)} stay in float32",
            RuntimeWarning,
            stacklevel=3,
        )


def _is_about_gradients(error: BaseException | None) -> bool:
    """Whether it is what torch says of gradients in inference mode."""
    return error is not None and re.search("grad|backward|inference tensor", str(error), re.IGNORECASE) is not None


def _check_mode(autoencoder: Autoencoder) -> None:
    if isinstance(autoencoder, nn.Module) and _is_training(autoencoder):
        raise ValueError("autoencoder is in training mode; call autoencoder.eval() first")


def _is_training(module: nn.Module) -> bool:
    if isinstance(module, torch.fx.GraphModule):  # an exported program has the flag of training, but no such mode
        return False
    if isinstance(compiled := getattr(module, "_orig_mod", None), nn.Module):  # with torch 2.4 its own flag is up
        return _is_training(compiled)
    return module.training or any(_is_training(child) for child in module.children())


def _fingerprint(autoencoder: Autoencoder) -> dict[str, tuple[object, ...]]:
    """By the name of each parameter and buffer: where it is, what it looks like, how often the parameter was written.

    What a forward pass writes into a buffer is the module's own business.
    """
    if not isinstance(autoencoder, nn.Module):
        return {}
    looks: dict[str, tuple[object, ...]] = {
        name: (_address(tensor), tensor.shape, tensor.dtype) for name, tensor in autoencoder.named_buffers()
    }
    for name, tensor in autoencoder.named_parameters():
        written = None if tensor.is_inference() else tensor._version
        looks[name] = (_address(tensor), tensor.shape, tensor.dtype, written)
    return looks


def _address(tensor: Tensor) -> int:
    try:
        return tensor.data_ptr()
    except RuntimeError:  # a sparse one has no memory of its own, but parts that have
        return id(tensor)


def _has_2d_convolutions(autoencoder: Autoencoder) -> bool:
    kinds = (nn.Conv2d, nn.ConvTranspose2d)
    return isinstance(autoencoder, nn.Module) and any(isinstance(module, kinds) for module in autoencoder.modules())


def _share_memory(a: Tensor, b: Tensor) -> bool:
    return a.untyped_storage().data_ptr() == b.untyped_storage().data_ptr()

"""`recover()` and `iterate()`: the two calls most people make; and the solvers behind them, for streams of images."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from memrecon_fast import ops
from memrecon_fast.common.checks import check_integer, check_number
from memrecon_fast.common.typing import Autoencoder
from memrecon_fast.degradation import broadcast_mask
from memrecon_fast.engine.inflight import InFlight, slots_by_default
from memrecon_fast.engine.prox import device_of
from memrecon_fast.engine.samples import Finished, Sample
from memrecon_fast.engine.solver import AnySolver
from memrecon_fast.results import Recovery
from memrecon_fast.settings import MAX_ITERATIONS, SOLVERS, Settings
from memrecon_fast.solvers import iteration

PIXEL_RANGE = (-10.0, 10.0)
"""Degraded pixels must lie in this range: [0, 1] with room for noise, so that 0…255 is noticed."""
CPU = torch.device("cpu")
_NUMBERS = ("residual", "fixed_point_mse", "misfit", "explained")
_COUNTERS = ("outer_iterations", "evaluations", "attempts", "accepted", "rejected", "mask_changes")


def recover(
    autoencoder: Autoencoder,
    degraded: Tensor,
    mask: Tensor | None = None,
    settings: Settings | None = None,
    backend: str = "auto",
    slots: int | None = None,
) -> Recovery:
    """Recover training images of `autoencoder` from degraded copies, Abitbul & Dar (6)-(7) and (31).

    autoencoder: any callable (B, *image_shape) → (B, *image_shape), float32, that answers the same to the same image;
        an nn.Module must be in eval mode.
    degraded: float32 (B, *image_shape), pixels in [0, 1] but for noise, erased entries 0.
    mask: None (blind: the mask is estimated), or the true one: bool, True = kept, broadcastable to `degraded`.
    settings: the default is `Settings()`.
    backend: "auto", "torch", "cpp" or "triton"; the result says which one it was.
    slots: how many images are worked on at a time; see `inflight.InFlight`. It bounds memory (per pixel and
        slot 18 bytes, and 8 · (memory + 1) with "accelerated"; and the autoencoder's own) and does not change the
        result.

    An image's initial mask is keyed by (settings.seed, its position in `degraded`).

    Raises TypeError or ValueError, before work starts, for anything wrong with the arguments. What the autoencoder
    itself raises later passes through, and the images done by then are lost: `InFlight.stream` with `prepare_recover`
    hands out each image as it is done.
    """
    _check_degraded(degraded)
    masks = None if mask is None else broadcast_mask(mask, degraded)
    solver = prepare_recover(
        autoencoder,
        degraded.shape[1:],
        settings,
        known_masks=mask is not None,
        backend=backend,
        device=degraded.device,
    )
    if masks is not None:
        masks = masks.cpu()
    samples = (Sample(i, image, None if masks is None else masks[i]) for i, image in enumerate(degraded.cpu()))
    return _collect(_in_flight(solver, slots, degraded), samples, degraded)


def iterate(
    autoencoder: Autoencoder,
    degraded: Tensor,
    max_iterations: int = 1000,
    tolerance: float = 1e-9,
    backend: str = "auto",
    slots: int | None = None,
) -> Recovery:
    """Recover by iteration of the autoencoder alone, x ← f(x) from x = `degraded`, the method of earlier papers.

    An image stops once the MSE between successive iterates is below `tolerance`, or after `max_iterations`. The other
    arguments, the result and the errors are those of `recover`; the result's masks are all True.
    """
    _check_degraded(degraded)
    solver = prepare_iterate(
        autoencoder, degraded.shape[1:], max_iterations, tolerance, backend=backend, device=degraded.device
    )
    samples = (Sample(i, image) for i, image in enumerate(degraded.cpu()))
    return _collect(_in_flight(solver, slots, degraded), samples, degraded)


def prepare_recover(
    autoencoder: Autoencoder,
    image_shape: Sequence[int],
    settings: Settings | None = None,
    *,
    known_masks: bool = False,
    backend: str = "auto",
    device: torch.device = CPU,
) -> AnySolver:
    """The solver behind `recover`, for `inflight.InFlight`: any number of images in constant memory.

    known_masks: every `Sample` carries its mask. device: where to work if the autoencoder has no parameters to tell.
    Checks its arguments as `recover` does; the samples are then taken as they are.
    """
    if settings is not None and not isinstance(settings, Settings):
        raise TypeError(f"settings must be a Settings, not {type(settings).__name__}")
    settings = settings or Settings()
    device = device_of(autoencoder, default=device)
    name, _ = ops.choose(backend, device)
    prepare = SOLVERS[settings.solver].prepare
    solver: AnySolver = prepare(
        autoencoder, image_shape, settings, known_masks=known_masks, backend=name, device=device
    )
    return solver


def prepare_iterate(
    autoencoder: Autoencoder,
    image_shape: Sequence[int],
    max_iterations: int = 1000,
    tolerance: float = 1e-9,
    *,
    backend: str = "auto",
    device: torch.device = CPU,
) -> iteration.IterationSolver:
    """The solver behind `iterate`, for `inflight.InFlight`; see `prepare_recover`."""
    check_integer("max_iterations", max_iterations, low=1, high=MAX_ITERATIONS)
    check_number("tolerance", tolerance, low=0)
    device = device_of(autoencoder, default=device)
    name, _ = ops.choose(backend, device)
    return iteration.prepare(autoencoder, image_shape, max_iterations, tolerance, backend=name, device=device)


def _in_flight(solver: AnySolver, slots: int | None, degraded: Tensor) -> InFlight:
    """With as many slots as were asked for, or the default; no more than there are images."""
    if slots is None:
        slots = slots_by_default(solver)
    check_integer("slots", slots, low=1)
    return InFlight(solver, max(1, min(slots, len(degraded))))


def _check_degraded(degraded: Tensor) -> None:
    if not isinstance(degraded, Tensor):
        raise TypeError(f"degraded must be a torch tensor, not {type(degraded).__name__}")
    if degraded.dtype != torch.float32:
        raise TypeError(f"degraded must be float32 with pixels in [0, 1], not {degraded.dtype}")
    if degraded.dim() < 2 or 0 in degraded.shape[1:]:
        raise ValueError(f"degraded must be a batch (B, *image_shape), not of shape {tuple(degraded.shape)}")
    if not len(degraded):
        return
    low, high = degraded.aminmax()
    if not (low.isfinite() and high.isfinite()):
        wrong = (~degraded.flatten(1).isfinite()).any(dim=1).nonzero()[0].item()
        raise ValueError(f"degraded has NaN or infinite pixels, first in image {wrong}")
    if low < PIXEL_RANGE[0] or high > PIXEL_RANGE[1]:
        raise ValueError(f"degraded must have pixels in [0, 1], but for noise; it has [{low:g}, {high:g}]")


def _collect(in_flight: InFlight, samples: Iterable[Sample], degraded: Tensor) -> Recovery:
    """The results in the order of the input."""
    count, device = len(degraded), degraded.device
    images = torch.empty(degraded.shape, dtype=torch.float32, device="cpu")
    masks = torch.empty(degraded.shape, dtype=torch.bool, device="cpu")
    finished: list[Finished | None] = [None] * count
    for one in in_flight.stream(samples):
        images[one.index] = one.image
        masks[one.index] = one.mask
        finished[one.index] = dataclasses.replace(one, image=images[one.index], mask=masks[one.index])

    def column(name: str, dtype: torch.dtype) -> Tensor:
        return torch.tensor([getattr(one, name) for one in finished], dtype=dtype, device=device)

    return Recovery(
        images=images.to(device),
        masks=masks.to(device),
        status=column("status", torch.int8),
        gamma=column("gamma", torch.float64),
        **{name: column(name, torch.float32) for name in _NUMBERS},
        **{name: column(name, torch.int32) for name in _COUNTERS},
        backend=in_flight.solver.backend,
        execution=in_flight.execution,
    )

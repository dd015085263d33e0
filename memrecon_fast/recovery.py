"""`recover()` and `iterate()`: the two calls most people make; and the solvers behind them, for streams of images."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from memrecon_fast import ops
from memrecon_fast.common.checks import check_integer, check_number
from memrecon_fast.common.errors import AutoencoderChangedError
from memrecon_fast.common.typing import Autoencoder
from memrecon_fast.degradation import broadcast_mask, check_mask, contradiction, may_be_erased
from memrecon_fast.engine.inflight import InFlight
from memrecon_fast.engine.prox import device_of
from memrecon_fast.engine.samples import Sample
from memrecon_fast.engine.solver import Solver
from memrecon_fast.engine.transfer import to_device, working_on
from memrecon_fast.results import MAX_SHOWN, Recovery
from memrecon_fast.settings import MAX_ITERATIONS, SOLVERS, Settings
from memrecon_fast.showing.progress import progress_bar
from memrecon_fast.solvers import iteration

PIXEL_RANGE = (-10.0, 10.0)
"""Degraded pixels must lie in this range: [0, 1] with room for noise, so that 0…255 is noticed."""
CPU = torch.device("cpu")
COLUMNS: dict[str, tuple[torch.dtype, float]] = {
    **dict.fromkeys(("residual", "fixed_point_mse", "misfit", "explained"), (torch.float32, math.nan)),
    **dict.fromkeys(("outer_iterations", "evaluations", "accepted", "rejected", "mask_changes"), (torch.int32, 0)),
    "attempts": (torch.int32, 1),
    "status": (torch.int8, 0),
    "gamma": (torch.float64, math.nan),
}
"""Of a `Recovery`: the dtype of each column (B,), and its entries where a solver has none."""


def recover(
    autoencoder: Autoencoder,
    degraded: Tensor,
    mask: Tensor | None = None,
    settings: Settings | None = None,
    backend: str = "auto",
    slots: int | None = None,
    progress: bool = False,
) -> Recovery:
    """Recover training images of `autoencoder` from degraded copies, Abitbul & Dar (6)-(7) and (31).

    autoencoder: any callable (B, *image_shape) → (B, *image_shape), float32, that answers the same to the same image;
        an nn.Module must be in eval mode.
    degraded: float32 (B, *image_shape), pixels in [0, 1] but for noise, erased entries 0.
    mask: None (blind: the mask is estimated), or the true one: bool, True = kept, broadcastable to `degraded`. One that
        keeps all of an image or nothing is refused, and, with `restore_known_pixels`, an image that is not 0 where it
        was erased.
    settings: the default is `Settings()`.
    backend: "auto", "torch", "cpp" or "triton"; the result says which one it was.
    slots: how many images are worked on at a time; see `inflight.InFlight`. It bounds memory (per pixel and
        slot 18 bytes, and 8 · (memory + 1) with "accelerated"; and the autoencoder's own) and does not change the
        result.
    progress: show how many images are done: a bar in a terminal (needs rich), a plain line elsewhere.

    An image's initial mask is keyed by (settings.seed, its position in `degraded`).

    Raises TypeError or ValueError, before work starts, for anything wrong with the arguments, and where the autoencoder
    is no function of each image alone: noise, dropout, statistics over the batch. What the autoencoder itself raises
    later passes through, and the images done by then are lost: `InFlight.stream` with `prepare_recover` hands out each
    image as it is done. An autoencoder that is random now and then, or that is changed by its use, is noticed at the
    end: the result says so in `doubt`, and a RuntimeWarning does.

    Whatever was switched in torch, such as autocast, the default dtype or gradients, the numbers are those of
    `settings.precision`.
    """
    solver, masks = check_and_prepare(autoencoder, degraded, mask, settings, backend)
    return _run(solver, slots, degraded, masks, doing="recovering" if progress else "")


def iterate(
    autoencoder: Autoencoder,
    degraded: Tensor,
    max_iterations: int = 1000,
    tolerance: float = 1e-9,
    backend: str = "auto",
    slots: int | None = None,
    progress: bool = False,
) -> Recovery:
    """Recover by iteration of the autoencoder alone, x ← f(x) from x = `degraded`, the method of earlier papers.

    An image stops once the MSE between successive iterates is below `tolerance`, or after `max_iterations`. The other
    arguments, the result and the errors are those of `recover`; the result's masks are all True.
    """
    check_degraded(degraded)
    solver = prepare_iterate(
        autoencoder, degraded.shape[1:], max_iterations, tolerance, backend=backend, device=degraded.device
    )
    return _run(solver, slots, degraded, doing="iterating" if progress else "")


def check_and_prepare(
    autoencoder: Autoencoder, degraded: Tensor, mask: Tensor | None, settings: Settings | None, backend: str
) -> tuple[Solver, Tensor | None]:
    """The solver for the arguments of `recover`, and the masks, bool (B, *image_shape), where they are known. Raises
    and warns as `recover`."""
    check_degraded(degraded)
    masks = None if mask is None else broadcast_mask(mask, degraded)
    noisy = isinstance(settings, Settings) and not settings.restore_known_pixels
    if masks is not None:
        _check_masks(degraded, masks, noisy)
    solver = prepare_recover(
        autoencoder,
        degraded.shape[1:],
        settings,
        known_masks=mask is not None,
        backend=backend,
        device=degraded.device,
    )
    if not noisy and not _warn_of_other_pixels(degraded) and masks is None:
        _warn_of_nothing_erased(degraded)
    return solver, masks


def prepare_recover(
    autoencoder: Autoencoder,
    image_shape: Sequence[int],
    settings: Settings | None = None,
    *,
    known_masks: bool = False,
    backend: str = "auto",
    device: torch.device = CPU,
) -> Solver:
    """The solver behind `recover`, for `inflight.InFlight`: any number of images in constant memory.

    known_masks: every `Sample` carries its mask. device: where to work if the autoencoder has no parameters to tell.
    Checks its arguments as `recover` does; the samples are then taken as they are.
    """
    if settings is not None and not isinstance(settings, Settings):
        raise TypeError(f"settings must be a Settings, not {type(settings).__name__}")
    settings = settings or Settings()
    device = device_of(autoencoder, default=device)
    name = ops.choose(backend, device).backend
    prepare = SOLVERS[settings.solver].prepare
    solver: Solver = prepare(autoencoder, image_shape, settings, known_masks=known_masks, backend=name, device=device)
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
    name = ops.choose(backend, device).backend
    return iteration.prepare(autoencoder, image_shape, max_iterations, tolerance, backend=name, device=device)


def check_degraded(degraded: Tensor) -> None:
    """Raise TypeError or ValueError for what cannot be a batch of degraded images."""
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


def _check_masks(degraded: Tensor, masks: Tensor, noisy: bool) -> None:
    """Raise ValueError where a mask keeps all or nothing, or where an image contradicts its mask."""
    axes = tuple(range(1, masks.dim()))
    suspects = masks.all(dim=axes) | ~masks.any(dim=axes) | torch.where(masks, 0.0, degraded).any(dim=axes)
    for index in suspects.nonzero().flatten().tolist():
        check_mask(f"the mask of image {index}", masks[index])
        if wrong := contradiction(degraded[index], masks[index], noisy):
            raise ValueError(f"image {index} of degraded: {wrong} (with noise: Settings(restore_known_pixels=False))")


def _warn_of_other_pixels(degraded: Tensor) -> bool:
    """A RuntimeWarning where pixels are outside [0, 1], which without noise they are not; returns whether it warned."""
    if not len(degraded) or (degraded.min() >= 0 and degraded.max() <= 1):
        return False
    warnings.warn(
        f"pixels are in [0, 1], but those of degraded in [{degraded.min():g}, {degraded.max():g}]: a model that takes "
        "others is adapted by autoencoders.adapt (with noise: Settings(restore_known_pixels=False))",
        RuntimeWarning,
        stacklevel=4,
    )
    return True


def _warn_of_nothing_erased(degraded: Tensor) -> None:
    """A RuntimeWarning where images have no entry of 0, as those are that were erased."""
    whole = ~may_be_erased(degraded)
    if whole.any():
        first = int(whole.nonzero()[0])
        value, count = degraded[first].reshape(-1).unique(return_counts=True)
        often = int(count.argmax())
        filled = f"; in image {first} the value {value[often]:g} stands {count[often]} times: set holes to 0"
        warnings.warn(
            f"nothing seems to be erased in {int(whole.sum())} of {len(degraded)} degraded images, the first one image "
            f"{first}: erased entries must be 0, and none is (with noise: Settings(restore_known_pixels=False))"
            + (filled if count[often] > 1 else ""),
            RuntimeWarning,
            stacklevel=4,
        )


def _run(solver: Solver, slots: int | None, degraded: Tensor, masks: Tensor | None = None, doing: str = "") -> Recovery:
    """The results in the order of the input. doing: what a progress bar says; "": there is none.

    Where `degraded` is on the autoencoder's device, images and masks stay there from beginning to end; otherwise they
    go through the CPU. The slots: as many as asked for, or the default, but no more than there are images.
    """
    in_flight = InFlight(solver, slots, images=len(degraded))
    stay = degraded.device == solver.prox.device
    place = degraded.device if stay else CPU
    images = torch.empty(degraded.shape, dtype=torch.float32, device=place)
    estimated_masks = torch.empty(degraded.shape, dtype=torch.bool, device=place)
    columns = {
        name: torch.full((len(degraded),), entry, dtype=dtype, device=CPU) for name, (dtype, entry) in COLUMNS.items()
    }
    samples = samples_of(degraded.to(place), masks)
    with progress_bar(doing, len(degraded), "images", enabled=bool(doing)) as advance:
        for batch in in_flight.estimates(samples, pixels=not stay, on_done=advance):
            indices = torch.tensor([sample.index for sample in batch.samples], dtype=torch.int64, device=CPU)
            with working_on(place):
                rows = to_device(indices, place)
                images[rows] = batch.images
                estimated_masks[rows] = batch.masks
            for name, column in batch.numbers.items():
                if name in columns:
                    columns[name][indices] = column
    doubt = doubt_of(solver)
    return Recovery(
        images=images.to(degraded.device),
        masks=estimated_masks.to(degraded.device),
        **{name: column.to(degraded.device) for name, column in columns.items()},
        backend=solver.ops.backend,
        execution=in_flight.execution,
        doubt=doubt,
        first_degraded=degraded[:MAX_SHOWN].clone(),
    )


def samples_of(degraded: Tensor, masks: Tensor | None) -> Iterator[Sample]:
    """The images one by one, each with its mask, where they are known, on the device of the images."""
    known = itertools.repeat(None) if masks is None else masks.to(degraded.device)
    return (Sample(i, image, mask) for i, (image, mask) in enumerate(zip(degraded, known, strict=False)))


def doubt_of(solver: Solver) -> str:
    """`Recovery.doubt`, at the end of the work; a RuntimeWarning where there is one."""
    try:
        solver.prox.check_same()
    except AutoencoderChangedError as error:
        doubt = f"{error}: the result is in doubt"
        warnings.warn(doubt, RuntimeWarning, stacklevel=4)
        return doubt
    return ""

"""Whether the autoencoder is a function of each image alone: the same image in, the same image out.

All that is recovered rests on that. Noise, dropout or sampling that is left on, statistics over the batch, and weights
that a forward pass changes make it something else, which may look like an autoencoder that remembers nothing.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

Rows = Callable[[Tensor], Tensor]
"""f on rows [n, d] → the same."""

REPEATED = {"cpu": 1e-6, "cuda": 2e-5}
"""By device: so much may two answers to the same batch differ, as `distance`. Where sums are made by atomic operations,
their order varies; noise below that is below all thresholds of a recovery."""
ROUNDING = {"cpu": 2e-5, "cuda": 2e-4}
"""By device: what another order or number of rows may cost in float32, as other kernels add in another order; on a GPU
also convolutions by transforms."""
_AMPLIFIED = 100
"""... and so many times what two units in the last place of the input cost: an autoencoder may amplify roundings."""
_LAST_PLACES = 2.0**-22
_NEAR = 0.99
"""Rows that are near: so many times as bright."""


def trial_images(count: int, image_shape: Sequence[int]) -> Tensor:
    """float32 (count, *image_shape), always the same ones, of four kinds in turn, as images differ from each other:
    smooth, noise in [−1, 2] (what enters f may leave [0, 1]), noise in [0, 1], and all of one level."""
    generator = torch.Generator("cpu").manual_seed(0)
    images = torch.rand(count, *image_shape, generator=generator, dtype=torch.float32, device="cpu")
    flat = images.view(count, -1)
    place = torch.linspace(0, 2 * torch.pi, flat.shape[1], dtype=torch.float32, device="cpu")
    for i in range(0, count, 4):
        flat[i] = 0.475 + 0.225 * torch.sin(place * (1 + i / 4) + i)
    flat[1::4] = flat[1::4] * 3 - 1
    flat[3::4] = torch.linspace(0, 1, len(flat[3::4]), dtype=torch.float32, device="cpu")[:, None]
    return images


def check_function(f: Rows, rows: Tensor, sizes: range, unit: float) -> None:
    """Raise ValueError where f is no function of each image alone; the message says what it does instead.

    f is applied again to the same rows, to the rows in another order, and to a few of them: to as many as the smallest
    of the sizes ≥ 4; and to rows near those it was just given, once more after others, as what it keeps from call to
    call shows there. The rows are changed where they lie, as a solver does: an answer that is kept by the address of
    its question is another's then.

    rows: float32 [n, d] of `trial_images`. unit: of the coarsest number format that f computes in.
    """
    with private_randomness(rows.device) as reseed:
        place = rows.clone()
        answers = f(place).clone()  # f may answer in memory that it uses again
        reseed(1)
        _check_repeats(answers, f(place))
        near = f(place.copy_(rows * _NEAR)).clone()
        count = len(rows)
        order = [*range(1, count, 2), *range(0, count, 2)][::-1]
        for chosen, where in (
            (order, "its place in the batch, or its neighbours there"),
            (subset(count, sizes), "how many others, or which, are in the batch with it"),
        ):
            moved = f(place[: len(chosen)].copy_(rows[chosen])).clone()
            apart = distance(answers[chosen], moved)
            if not is_rounding(apart, answers, f, rows, unit):
                _check_repeats(moved, f(place[: len(chosen)]))  # it may be random now and then
                raise ValueError(
                    f"autoencoder's answer to an image depends on {where} ({by(apart)}); it must be a function of each "
                    f"image alone. Usual causes: BatchNorm with track_running_stats=False, or a .pt2 file exported "
                    f"without .eval(); attention or normalisation over the batch; values that are quantised by the "
                    f"range of the batch"
                )
        apart = distance(near, f(place.copy_(rows * _NEAR)))
        if apart > REPEATED[rows.device.type]:
            raise ValueError(
                f"autoencoder's answer depends on what it was applied to before ({by(apart)}): it keeps something from "
                f"one call to the next, such as a cache that is used again where the input hardly changed"
            )


def _check_repeats(first: Tensor, second: Tensor) -> None:
    """Raise ValueError where two answers to the same rows differ."""
    apart = distance(first, second)
    if apart > REPEATED[first.device.type]:
        raise ValueError(
            f"autoencoder answers differently to the same images ({by(apart)}): it adds noise, or dropout or sampling "
            f"is left on, or a forward pass changes it. Usual causes: a functional dropout without "
            f"training=self.training, a VAE that samples its latent in eval mode, a .pt2 file exported without .eval()"
        )


def subset(count: int, sizes: range) -> list[int]:
    """A few of so many rows of `trial_images`, as many as the smallest of the sizes ≥ 4: smooth images first. All in
    their order where there is no such size below `count`."""
    few = next((size for size in sizes if size >= 4), count)
    return sorted(range(count), key=lambda i: (i % 4, i))[:few] if few < count else list(range(count))


def is_rounding(apart: float, answers: Tensor, f: Rows, rows: Tensor, unit: float) -> bool:
    """Whether another number or order of rows may move answers so far, as `distance`.

    answers: [m, d] to the first m of the rows, float32 [n, d]. unit: of the coarsest number format that f computes in.
    """
    if apart <= max(ROUNDING[rows.device.type], unit / 2):
        return True
    generator = torch.Generator("cpu").manual_seed(1)
    signs = torch.rand(rows.shape, generator=generator, dtype=torch.float32, device="cpu").sub_(0.5).sign_()
    nudged = rows * (1 + _LAST_PLACES * signs.to(rows.device))
    return apart <= _AMPLIFIED * distance(answers, f(nudged)[: len(answers)])


def distance(a: Tensor, b: Tensor) -> float:
    """The largest root mean square of the difference of two rows [n, d], relative to that of the first where it is
    above 1; infinite where one has NaN or infinity and the other has not."""
    same = (a == b) | (a.isnan() & b.isnan())
    exact = a.double()
    difference = (exact - b.double()).masked_fill(same, 0.0).square().mean(dim=1).sqrt()
    size = torch.where(a.isfinite(), exact, 0.0).square().mean(dim=1).sqrt().clamp(min=1)
    return float((difference / size).nan_to_num(nan=torch.inf, posinf=torch.inf).max()) if len(a) else 0.0


@contextlib.contextmanager
def private_randomness(device: torch.device) -> Iterator[Callable[[int], None]]:
    """Other states of the global random generators, of torch, NumPy and Python; as they were at the end.

    So the caller's random numbers stay the same, and what puts a generator back after each use cannot hide. Yields a
    function that seeds them anew.
    """
    python, numbers = random.getstate(), np.random.get_state()  # noqa: NPY002 (it is the model that may use it)
    index = device.index if device.index is not None or device.type == "cpu" else torch.cuda.current_device()

    def reseed(seed: int) -> None:
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        torch.default_generator.manual_seed(seed)
        if device.type == "cuda":
            torch.cuda.default_generators[index].manual_seed(seed)

    with torch.random.fork_rng([index] if device.type == "cuda" else []):
        try:
            reseed(0)
            yield reseed
        finally:
            random.setstate(python)
            np.random.set_state(numbers)  # noqa: NPY002


def by(apart: float) -> str:
    """A distance in words."""
    return "NaN or infinity in one answer alone" if np.isinf(apart) else f"by {apart:.1g} in the mean over its pixels"

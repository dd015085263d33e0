"""Methods that are no iteration in slots: a function of a batch of degraded images and their masks."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Iterable, Sequence

import torch
from torch import Tensor

from memrecon_fast.engine.review import score
from memrecon_fast.engine.samples import Batch, Finished, Sample
from memrecon_fast.engine.solver import Solver
from memrecon_fast.engine.transfer import working_on
from memrecon_fast.results import Status

IMAGES_AT_ONCE = 64


class BatchedSamples:
    """A stream of images through a function, many at a time, that asks more of an image than its pixels: its index,
    which is the key of its random numbers, or the noise that it carries.

    function: of degraded images, float32 (B, *image_shape), their masks, bool, the same shape, True = kept, and the
        samples that these are of; gives the estimates, the same shape, float32, or float64, which is converted. Each
        estimate must depend on its own image alone. It is called without gradients.
    scorer: a solver whose autoencoder scores the estimates, with one application each; it does no work.
    images_at_once: B at most; None: 64.
    """

    how = "batches, without slots"

    def __init__(
        self,
        function: Callable[[Tensor, Tensor, Sequence[Sample]], Tensor],
        scorer: Solver,
        images_at_once: int | None = None,
    ) -> None:
        self._function, self._scorer = function, scorer
        self._count = min(images_at_once or IMAGES_AT_ONCE, scorer.prox.most_rows)

    def batches(self, samples: Iterable[Sample]) -> Generator[list[Finished], None, None]:
        """The samples, each with what came of it. Raises ValueError for one that comes without its mask."""
        self._scorer.prox.check_unchanged()
        waiting = iter(samples)
        while batch := list(itertools.islice(waiting, self._count)):
            yield self._finish(batch)

    def check(self) -> None:
        """As `InFlight.check`."""
        self._scorer.prox.check_same()

    def _finish(self, samples: list[Sample]) -> list[Finished]:
        prox = self._scorer.prox
        known = [sample.mask for sample in samples if sample.mask is not None]
        if len(known) < len(samples):
            missing = next(sample.index for sample in samples if sample.mask is None)
            raise ValueError(f"image {missing} comes without its mask")
        degraded, masks = torch.stack([sample.degraded for sample in samples]), torch.stack(known)
        with torch.no_grad():
            images = self._function(degraded, masks, samples)
        if (
            not isinstance(images, Tensor)
            or images.shape != degraded.shape
            or images.dtype not in (torch.float32, torch.float64)
        ):
            got = f"{images.dtype} {tuple(images.shape)}" if isinstance(images, Tensor) else type(images).__name__
            raise TypeError(
                f"the method's function must return float32 or float64 {tuple(degraded.shape)}, a batch like the "
                f"degraded images; it returned {got}"
            )
        images = images.float()
        with working_on(prox.device):
            estimates, observed, kept = (prox.to_rows(x.to(prox.device)) for x in (images, degraded, masks))
            count = len(samples)
            diverged = ~estimates.isfinite().all(dim=1)
            ones = torch.ones(count, dtype=torch.int32, device=prox.device)
            converged = torch.full((count,), int(Status.CONVERGED), dtype=torch.int8, device=prox.device)
            batch = Batch(
                samples=samples,
                images=estimates,
                masks=kept,
                observed=observed.masked_fill(~kept, 0.0),
                outer_iterations=ones,
                evaluations=torch.zeros_like(ones),
                status=converged.masked_fill_(diverged, int(Status.DIVERGED)),
                residual=torch.full((count,), torch.nan, dtype=torch.float32, device=prox.device),
            )
            scored = score(prox, self._scorer.ops, batch, self._count).to_host(prox)
        return list(scored.unpack())


class Batched(BatchedSamples):
    """A stream of images, many at a time, through a function of the degraded images and their masks alone.

    function: of degraded images, float32 (B, *image_shape), and their masks, bool, the same shape, True = kept; gives
        the estimates, the same shape, float32, or float64, which is converted. Each estimate must depend on its own
        image alone. It is called without gradients. Raises TypeError for another answer.
    scorer: a solver whose autoencoder scores the estimates, with one application each: of
        `recovery.prepare_iterate(autoencoder, image_shape)`, for instance.
    images_at_once: B at most; None: 64.
    """

    def __init__(
        self, function: Callable[[Tensor, Tensor], Tensor], scorer: Solver, images_at_once: int | None = None
    ) -> None:
        super().__init__(lambda degraded, masks, samples: function(degraded, masks), scorer, images_at_once)

"""Images on their way through a solver: one by one until they are in slots, many together once they have left them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from memrecon_fast.engine.prox import Prox
from memrecon_fast.engine.transfer import record_event, to_device, to_host, working_on
from memrecon_fast.results import Status


@dataclasses.dataclass(frozen=True)
class Sample:
    """An image that waits for a slot: its index (the key of its random choices), and what is known of it.

    Its tensors are on the CPU or on the autoencoder's device, where they are read without a way through the CPU.
    """

    index: int
    degraded: Tensor
    """float32, image_shape."""
    mask: Tensor | None = None
    """bool, image_shape, True = kept: the known mask; only solvers made for known masks read it."""
    initial_mask: Tensor | None = None
    """bool, image_shape: the first estimate of the mask; None: drawn as the settings say."""
    initial_state: Tensor | None = None
    """float32, image_shape: the first input of the autoencoder, from which a solver that keeps its state goes on."""
    attempt: int = 0
    """Which of the solver's attempts at the image is to be made."""
    best: Finished | None = None
    """The best estimate of the attempts before; its tensors are where the results are wanted."""
    iterations_before: int = 0
    """Outer iterations that another solver made for it before; they count in the result."""
    evaluations_before: int = 0
    """Applications of f that another solver made for it before; they count in the result."""
    noise_std: float = 0.0
    """Standard deviation of the noise on `degraded`, where it is known; only methods that model noise read it."""
    label: Any = None
    """Anything the caller wants to have back with the result."""


@dataclasses.dataclass(frozen=True)
class Staged:
    """A sample made ready to be loaded into a slot."""

    sample: Sample
    images: Mapping[str, Tensor]
    """What is loaded, by the name of the slots' tensor: image_shape, on the CPU or on the autoencoder's device."""
    gamma: float = math.nan
    """The penalty γ, of a solver that has one."""


@dataclasses.dataclass(frozen=True)
class Finished:
    """An image that is done, and what came of it; its tensors are on the CPU."""

    index: int
    image: Tensor
    """float32, image_shape."""
    mask: Tensor
    """bool, image_shape."""
    outer_iterations: int
    evaluations: int
    status: Status
    residual: float
    gamma: float = math.nan
    accepted: int = 0
    rejected: int = 0
    mask_changes: int = 0
    attempts: int = 1
    fixed_point_mse: float = math.nan
    """NaN until it is measured."""
    misfit: float = math.nan
    explained: float = math.nan
    score: float = math.nan
    """`results.score_of` the three before."""
    label: Any = None
    """That of the sample."""


@dataclasses.dataclass(frozen=True)
class Batch:
    """Images that are done: n samples and what came of them. Row i of every column belongs to sample i.

    The columns are on the device, and the pixels in rows, as they come out of the slots; after `to_host` they are on
    the host, and the pixels in images. Their memory is their own.
    """

    samples: Sequence[Sample]
    images: Tensor
    """float32 [n, d] or (n, *image_shape): the estimates."""
    masks: Tensor
    """bool [n, d] or (n, *image_shape): the masks of the estimates."""
    observed: Tensor | None
    """float32 [n, d]: the degraded images, 0 where a pixel is known to be erased; None once the scores are known."""
    outer_iterations: Tensor
    """int32 [n]."""
    evaluations: Tensor
    """int32 [n]."""
    status: Tensor
    """int8 [n]."""
    residual: Tensor
    """float32 [n]."""
    gamma: Tensor | None = None
    """float64 [n]; this and the columns below are None where `Finished` has its default."""
    accepted: Tensor | None = None
    """int32 [n]."""
    rejected: Tensor | None = None
    """int32 [n]."""
    mask_changes: Tensor | None = None
    """int32 [n]."""
    attempts: Tensor | None = None
    """int32 [n]."""
    fixed_point_mse: Tensor | None = None
    """float32 [n], as the three below; see `review.score`."""
    misfit: Tensor | None = None
    explained: Tensor | None = None
    score: Tensor | None = None
    event: torch.cuda.Event | None = None
    """The columns on the host can be read once this has happened; None: now."""

    @property
    def columns(self) -> dict[str, Tensor]:
        """All that are known, by name."""
        return {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}

    @property
    def numbers(self) -> dict[str, Tensor]:
        """The columns [n], by the name of a field of `Finished`."""
        return {name: column for name, column in self.columns.items() if column.dim() == 1}

    def part(self, rows: Sequence[int]) -> Batch:
        """The samples in these rows, ascending: copies, so that the others need not stay in memory with them."""
        if len(rows) == len(self.samples):
            return self
        index = torch.tensor(rows, dtype=torch.int64, device="cpu")
        at = {device: to_device(index, device) for device in {column.device for column in self.columns.values()}}
        columns: dict[str, Any] = {
            name: column.index_select(0, at[column.device]) for name, column in self.columns.items()
        }
        return dataclasses.replace(self, samples=[self.samples[row] for row in rows], **columns)

    def to_host(self, prox: Prox, pixels: bool = True) -> Batch:
        """The same on its way to the host, with what was done for the samples before counted, too.

        pixels: False: images and masks stay on the device, in views of the shape of images.
        """
        with working_on(prox.device):
            if pixels:
                images, masks = (to_host(prox.to_images(rows)) for rows in (self.images, self.masks))
            else:
                images, masks = prox.as_images(self.images), prox.as_images(self.masks)
            before = {
                "outer_iterations": [sample.iterations_before for sample in self.samples],
                "evaluations": [sample.evaluations_before for sample in self.samples],
            }
            numbers = self.numbers
            for name, counts in before.items():
                if any(counts):
                    more = torch.tensor(counts, dtype=torch.int32, device="cpu")
                    numbers[name] = numbers[name] + to_device(more, prox.device)
            changed: dict[str, Any] = {name: to_host(column) for name, column in numbers.items()}
            event = record_event(prox.device)
        return dataclasses.replace(self, images=images, masks=masks, observed=None, event=event, **changed)

    def arrived(self) -> bool:
        """Whether `wait` would return at once."""
        return self.event is None or self.event.query()

    def wait(self) -> None:
        """Until the columns on the host can be read."""
        if self.event is not None:
            self.event.synchronize()

    def finished(self, row: int) -> Finished:
        """A single image of a batch that went `to_host` and has arrived."""
        numbers = {name: column[row].item() for name, column in self.numbers.items()}
        return self._finished(row, {**numbers, "status": Status(int(numbers["status"]))})

    def unpack(self) -> Iterator[Finished]:
        """The single images of a batch that went `to_host`, one after the other; waits for it."""
        self.wait()
        numbers = {name: column.tolist() for name, column in self.numbers.items()}
        numbers["status"] = [Status(status) for status in numbers["status"]]
        for row, values in enumerate(zip(*numbers.values(), strict=True)):
            yield self._finished(row, dict(zip(numbers, values, strict=True)))

    def _finished(self, row: int, numbers: Mapping[str, Any]) -> Finished:
        sample = self.samples[row]
        return Finished(
            index=sample.index,
            image=self.images[row].clone(),  # the others of its batch need not stay in memory with it
            mask=self.masks[row].clone(),
            label=sample.label,
            **numbers,
        )


def join(batches: Sequence[Batch]) -> Batch:
    """All of them in one, in their order; at least one, all with the same columns."""
    first = batches[0]
    if len(batches) == 1:
        return first
    parts = [batch.columns for batch in batches]
    columns: dict[str, Any] = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    return dataclasses.replace(first, samples=[sample for batch in batches for sample in batch.samples], **columns)

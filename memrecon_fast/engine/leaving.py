"""Images that are done, on their way from the device to whoever gave them."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from memrecon_fast.engine.prox import Prox
from memrecon_fast.engine.samples import Done, Finished, Sample
from memrecon_fast.engine.transfer import record_event, to_host, working_on
from memrecon_fast.results import Status

Pair = tuple[Sample, Finished]


@dataclasses.dataclass(frozen=True)
class Leaving:
    """They are on the host once the event has happened."""

    samples: list[Sample]
    images: Tensor
    masks: Tensor
    columns: dict[str, Tensor]
    """By the name of a field of `Finished`: [n]."""
    event: torch.cuda.Event | None

    def arrived(self) -> bool:
        """Whether `pairs` would not have to wait."""
        return self.event is None or self.event.query()

    def pairs(self) -> list[Pair]:
        """Each sample with what came of it."""
        if self.event is not None:
            self.event.synchronize()
        columns = {name: column.tolist() for name, column in self.columns.items()}
        pairs = []
        for i, sample in enumerate(self.samples):
            values = {name: column[i] for name, column in columns.items()}
            values["outer_iterations"] += sample.iterations_before
            values["evaluations"] += sample.evaluations_before
            values["status"] = Status(values["status"])
            finished = Finished(
                index=sample.index,
                image=self.images[i].clone(),  # the others of its batch need not stay in memory with it
                mask=self.masks[i].clone(),
                label=sample.label,
                **values,
            )
            pairs.append((sample, finished))
        return pairs


def leave(done: Done, prox: Prox) -> Leaving:
    """Send them to the host."""
    with working_on(prox.device):
        images, masks = (to_host(prox.to_images(rows)) for rows in (done.results.images, done.results.masks))
        columns = {name: column for name, column in vars(done.results).items() if column is not None}
        on_host = {name: to_host(column) for name, column in columns.items() if column.dim() == 1}
    return Leaving(done.samples, images, masks, on_host, record_event(prox.device))

"""What a solver offers to `InFlight`, which gives it images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from torch import Tensor

from memrecon_fast.engine.prox import Prox
from memrecon_fast.engine.samples import Batch, Sample, Staged
from memrecon_fast.ops import Operations


class Solver(Protocol):
    """What advances the slots; `solvers/` has the implementations.

    slots: a state of its own, see `ops.state`, with a `status` for each slot.
    """

    @property
    def prox(self) -> Prox:
        """The autoencoder."""

    @property
    def ops(self) -> Operations:
        """The operations, and the name of the backend that they are from."""

    @property
    def attempts(self) -> int:
        """How many there are at one image, see `Sample.attempt`."""

    @property
    def recognized_below(self) -> float:
        """The score of an estimate that makes further attempts needless."""

    @property
    def early(self) -> Solver | None:
        """The solver whose estimates of the masks the images begin with."""

    @property
    def finishes_at_admission(self) -> bool:
        """Whether an image may be done once it is admitted."""

    def allocate(self, slots: int) -> Any:
        """Empty slots."""

    def stage(self, sample: Sample) -> Staged:
        """What `admit` needs of a sample; called by another thread on a GPU."""

    def admit(self, slots: Any, staged: Sequence[Staged]) -> None:
        """Begin with these samples, one for each of the slots."""

    def advance(self, slots: Any) -> None:
        """One block: afterwards `slots.status` says which images are done. On a GPU it asks for no answer."""

    def results(self, slots: Any, indices: Tensor, samples: Sequence[Sample]) -> Batch:
        """What came of these samples, those in the slots with these indices, int64 [n]: copies."""

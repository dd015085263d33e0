"""What is to be believed of each input, without the truth: does θ need it, and do other starts find it as well?"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Sequence

import torch
from torch import Tensor

from memrecon_fast.reconstruction.compare import RECOVERED, compare
from memrecon_fast.reconstruction.results import Reconstruction
from memrecon_fast.results import Status


class Verdict(enum.IntEnum):
    """Of an input that came out."""

    FOUND = 0
    """θ is explained, takes this input for it, and every start that explained it has found the input."""
    LIKELY = 1
    """θ is not explained, but two or more starts were made, and all have found the input: other inputs are wrong."""
    DOUBTFUL = 2
    """Neither."""


@dataclasses.dataclass(frozen=True, eq=False)
class Judged:
    """The best of several reconstructions, which began from different starts."""

    best: Reconstruction
    """That of least residual; of those that are certain, where any is."""
    starts: int
    """That were made."""
    explained: int
    """Of these, how many explained θ."""
    found_by: Tensor
    """int64 (n,): by how many of the starts each input was found, to `compare.RECOVERED`."""
    verdict: Tensor
    """int64 (n,): of `Verdict`."""


def judge(solutions: Sequence[Reconstruction]) -> Judged:
    """Compare reconstructions of one θ, at least one, from different starts."""
    best = min(solutions, key=lambda one: (not one.certain, one.residual))
    found_by = torch.stack([_found(best, other) for other in solutions])
    explains = torch.tensor([one.status == Status.CONVERGED and one.certain == best.certain for one in solutions])
    verdict = torch.full((len(best.inputs),), int(Verdict.DOUBTFUL))
    if best.status == Status.CONVERGED:
        verdict[found_by[explains].all(dim=0)] = int(Verdict.FOUND)
    elif len(solutions) > 1:
        verdict[found_by.all(dim=0)] = int(Verdict.LIKELY)
    return Judged(best, len(solutions), int(explains.sum()), found_by.sum(dim=0), verdict)


def _found(best: Reconstruction, other: Reconstruction) -> Tensor:
    """bool (n,): the other has this input of the best as well, up to its sign where either does not know it."""
    compared = compare(best.inputs, other.inputs)
    known = best.signs_known & other.signs_known[compared.index.clamp_min(0)] & (compared.index >= 0)
    nearest = compare(best.inputs, other.inputs, up_to_sign=True).distance
    return torch.where(known, compared.distance, nearest) <= RECOVERED

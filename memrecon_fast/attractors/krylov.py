"""Eigenvalues and singular values of the largest modulus of many matrices at a time, from products alone.

n matrices of d × d are known by `times`: [n, d] → [n, d], each applied to its own row. Nothing waits for the host
inside a step; it looks at the small matrices only now and then.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar, Protocol, TypeVar

import torch
from torch import Tensor

_BREAKDOWN = 10 * torch.finfo(torch.float32).eps
"""What is left of a product after orthogonalisation, relative to it: below this it is rounding."""
_CACHED = 2**19
"""Known vectors are read four times: so many entries of them at a time stay in the caches of a CPU."""


class Linear(Protocol):
    """A matrix of each row; `jacobian.Linearisation` is one."""

    def times(self, v: Tensor) -> Tensor:
        """A v: float32 [n, d] → [n, d]."""

    def transposed(self, v: Tensor) -> Tensor:
        """Aᵀ v: float32 [n, d] → [n, d]."""


@dataclasses.dataclass(frozen=True)
class Found:
    """The values of largest modulus that bases hold, on the host."""

    values: Tensor
    """complex64 or float32 [n, k], by falling modulus; NaN where there are no more."""
    residuals: Tensor
    """float32 [n, k]: ‖A y − λ y‖ for the approximate eigenvector y of length 1 (‖Aᵀu − σ v‖ for singular vectors);
    infinite where there is none."""
    ended: Tensor
    """bool [n]: the space holds all that the start vector leads to, or is not finite: there is no more to be found."""

    def done(self, tolerance: float) -> Tensor:
        """bool [n]: all k residuals are below the tolerance, or there is no more to be found."""
        return self.ended | (self.residuals < tolerance).all(dim=1)


@dataclasses.dataclass
class Basis(abc.ABC):
    """What grows by a step, for each of n rows."""

    small: Tensor
    """float64 [n, …]: the small matrix of each row."""
    size: Tensor
    """int64 [n]: steps from vectors that are not 0."""
    steps: int

    growing: ClassVar[dict[str, tuple[int, ...]]]
    """The axes that grow, of each tensor that has any."""

    @abc.abstractmethod
    def step(self, matrices: Linear) -> None:
        """One vector more."""

    @abc.abstractmethod
    def look(self, k: int) -> Found:
        """The k values of largest modulus so far. Waits for the device."""


B = TypeVar("B", bound=Basis)


def gather(parts: Sequence[tuple[B, Tensor]], most: int) -> B:
    """One basis of these rows, int64 indices, of several with as many steps; with room for `most` steps in all.

    Copies: what it is taken from may be dropped. There must be no room left in them.
    """
    first = parts[0][0]
    found: dict[str, Any] = {}
    for field in dataclasses.fields(first):
        if field.name == "steps":
            continue
        tensors = [getattr(basis, field.name) for basis, _ in parts]
        together = torch.cat([tensor[rows.to(tensor.device)] for tensor, (_, rows) in zip(tensors, parts, strict=True)])
        for axis in first.growing.get(field.name, ()):
            shape = list(together.shape)
            shape[axis] = most - first.steps
            together = torch.cat([together, together.new_zeros(shape)], dim=axis)
        found[field.name] = together
    return dataclasses.replace(first, **found)


@dataclasses.dataclass
class Arnoldi(Basis):
    """A V = V H, with H upper Hessenberg, [n, m + 1, m]: for eigenvalues."""

    vectors: Tensor
    """V, float32 [n, m + 1, d]: orthonormal; 0 from where a row's space is exhausted."""

    growing: ClassVar[dict[str, tuple[int, ...]]] = {"vectors": (1,), "small": (1, 2)}

    @classmethod
    def begin(cls, start: Tensor, rows: int, most: int) -> Arnoldi:
        """With room for `most` steps, from a start vector [d], the same for each row."""
        device = start.device
        vectors = torch.zeros(rows, most + 1, len(start), dtype=torch.float32, device=device)
        vectors[:, 0] = start / start.norm()
        small = torch.zeros(rows, most + 1, most, dtype=torch.float64, device=device)
        return cls(small, torch.zeros(rows, dtype=torch.int64, device=device), 0, vectors)

    def step(self, matrices: Linear) -> None:
        """One more product of each row, made orthogonal to what is there."""
        j = self.steps
        last = self.vectors[:, j]
        product = matrices.times(last)
        left, parts = _without(product, self.vectors[:, : j + 1])
        rest, unit = _normalised(left, product, last_one=j + 1 >= last.shape[1])
        self.small[:, : j + 1, j] = parts
        self.small[:, j + 1, j] = rest
        self.vectors[:, j + 1] = unit
        self.size += last.any(dim=1)
        self.steps += 1

    def look(self, k: int) -> Found:
        """The k eigenvalues of largest modulus."""
        small, sizes = self.small.cpu(), self.size.cpu()
        values = torch.full((len(small), k), complex(torch.nan, torch.nan), dtype=torch.complex64, device="cpu")
        residuals = torch.full((len(small), k), torch.inf, dtype=torch.float32, device="cpu")
        finite = small.isfinite().flatten(1).all(dim=1)
        ended = ~finite
        for size in sizes[finite].unique().tolist():
            rows = ((sizes == size) & finite).nonzero().flatten()
            beyond = small[rows, size, size - 1].abs()
            found, vectors = torch.linalg.eig(small[rows, :size, :size])
            order = found.abs().argsort(dim=1, descending=True, stable=True)[:, :k]
            values[rows, : order.shape[1]] = found.gather(1, order).to(torch.complex64)
            last = vectors[:, size - 1].abs().gather(1, order)
            residuals[rows, : order.shape[1]] = (last * beyond[:, None]).float()
            ended[rows] = beyond == 0
        return Found(values, residuals, ended)


@dataclasses.dataclass
class GolubKahan(Basis):
    """A V = U B, Aᵀ U = V Bᵀ + β v eᵀ, with B upper bidiagonal and β in its last column, [n, m, m + 1]: for singular
    values."""

    right: Tensor
    """V, float32 [n, m + 1, d]."""
    left: Tensor
    """U, float32 [n, m, d]."""

    growing: ClassVar[dict[str, tuple[int, ...]]] = {"right": (1,), "left": (1,), "small": (1, 2)}

    @classmethod
    def begin(cls, start: Tensor, rows: int, most: int) -> GolubKahan:
        """With room for `most` steps, from a start vector [d], the same for each row."""
        device = start.device
        right = torch.zeros(rows, most + 1, len(start), dtype=torch.float32, device=device)
        right[:, 0] = start / start.norm()
        left = torch.zeros(rows, most, len(start), dtype=torch.float32, device=device)
        small = torch.zeros(rows, most, most + 1, dtype=torch.float64, device=device)
        return cls(small, torch.zeros(rows, dtype=torch.int64, device=device), 0, right, left)

    def step(self, matrices: Linear) -> None:
        """A product with A and one with Aᵀ, each made orthogonal to what is there."""
        j = self.steps
        last = self.right[:, j]
        product = matrices.times(last)
        rest, _ = _without(product, self.left[:, :j]) if j else (product, None)
        alpha, unit = _normalised(rest, product)
        self.left[:, j] = unit
        product = matrices.transposed(unit)
        rest, _ = _without(product, self.right[:, : j + 1])
        beta, ahead = _normalised(rest, product, last_one=j + 1 >= last.shape[1])
        self.right[:, j + 1] = ahead
        self.small[:, j, j] = alpha
        self.small[:, j, j + 1] = beta
        self.size += last.any(dim=1)
        self.steps += 1

    def look(self, k: int) -> Found:
        """The k largest singular values."""
        small, sizes = self.small.cpu(), self.size.cpu()
        values = torch.full((len(small), k), torch.nan, dtype=torch.float32, device="cpu")
        residuals = torch.full((len(small), k), torch.inf, dtype=torch.float32, device="cpu")
        finite = small.isfinite().flatten(1).all(dim=1)
        ended = ~finite
        for size in sizes[finite].unique().tolist():
            rows = ((sizes == size) & finite).nonzero().flatten()
            beyond = small[rows, size - 1, size].abs()
            vectors, found, _ = torch.linalg.svd(small[rows, :size, :size])
            taken = min(k, size)
            values[rows, :taken] = found[:, :taken].float()
            residuals[rows, :taken] = (vectors[:, size - 1, :taken].abs() * beyond[:, None]).float()
            ended[rows] = beyond == 0
        return Found(values, residuals, ended)


def solve(matrices: Linear, right: Tensor, steps: int) -> Tensor:
    """(I − A)⁻¹ b of each row, by GMRES with so many products: the best in that space.

    right: b, float32 [n, d]. Where A has the eigenvalue 1, what has the smallest residual there.
    """
    length = right.norm(dim=1)
    basis = Arnoldi.begin(torch.ones_like(right[0]), len(right), steps)
    basis.vectors[:, 0] = torch.where(length[:, None] > 0, right / length[:, None], 0.0)
    for _ in range(steps):
        basis.step(matrices)
    # (I − A) V = V (I − H), with one row more than columns
    system = torch.eye(steps + 1, steps, dtype=torch.float64, device=right.device) - basis.small
    aim = torch.zeros(len(right), steps + 1, 1, dtype=torch.float64, device=right.device)
    aim[:, 0, 0] = length
    weights = (torch.linalg.pinv(system, rtol=1e-10) @ aim).float()
    return torch.bmm(basis.vectors[:, :steps].transpose(1, 2), weights).squeeze(2)


def _without(product: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """A vector [n, d] of each row without its parts along known ones [n, j, d], and these parts, float64 [n, j].

    Classical Gram–Schmidt, twice: as good as the modified one, and two products instead of 2j.
    """
    left = product.unsqueeze(1)  # a row: as a column, the same products take five times as long on a CPU
    parts = torch.empty(len(product), 1, known.shape[1], dtype=torch.float64, device=known.device)
    at_once = max(1, _CACHED // max(1, known[0].numel())) if known.device.type == "cpu" else len(known)
    found = [
        _without_twice(*some)
        for some in zip(left.split(at_once), known.split(at_once), parts.split(at_once), strict=True)
    ]
    return torch.cat(found).squeeze(1), parts.squeeze(1)


def _without_twice(left: Tensor, known: Tensor, parts: Tensor) -> Tensor:
    """Of rows [n, 1, d]; the parts [n, 1, j] are written."""
    first = torch.bmm(left, known.transpose(1, 2))
    left = torch.baddbmm(left, first, known, alpha=-1)
    second = torch.bmm(left, known.transpose(1, 2))
    torch.add(first.double(), second, out=parts)
    return torch.baddbmm(left, second, known, alpha=-1)


def _normalised(left: Tensor, product: Tensor, last_one: bool = False) -> tuple[Tensor, Tensor]:
    """The length [n] of what is left of a product [n, d], and it at length 1; both 0 where it is rounding, or where
    there is no further dimension."""
    length = left.norm(dim=1)
    if last_one:
        return torch.where(length.isfinite(), 0.0, length), torch.zeros_like(left)
    goes_on = ~(length <= _BREAKDOWN * product.norm(dim=1))
    return torch.where(goes_on, length, 0.0), torch.where(goes_on[:, None], left / length[:, None], 0.0)

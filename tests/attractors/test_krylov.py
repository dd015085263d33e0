"""Arnoldi, Golub–Kahan and GMRES against dense matrices."""

from __future__ import annotations

import cmath
import dataclasses

import pytest
import torch
from torch import Tensor

from memrecon_fast.attractors.krylov import Arnoldi, Basis, GolubKahan, gather, solve


@dataclasses.dataclass(frozen=True)
class Dense:
    """Matrices [n, d, d] that are known."""

    matrices: Tensor

    def times(self, v: Tensor) -> Tensor:
        return torch.bmm(self.matrices, v[:, :, None])[:, :, 0]

    def transposed(self, v: Tensor) -> Tensor:
        return torch.bmm(self.matrices.transpose(1, 2), v[:, :, None])[:, :, 0]


def advanced(kind: type[Arnoldi] | type[GolubKahan], matrices: Tensor, steps: int) -> Basis:
    count, d, _ = matrices.shape
    start = torch.randn(d, generator=torch.Generator().manual_seed(3))
    basis = kind.begin(start, count, steps)
    for _ in range(steps):
        basis.step(Dense(matrices))
    return basis


def similar(blocks: list[Tensor], d: int, seed: int = 0, skew: float = 0.3) -> Tensor:
    """A dense d × d matrix with these blocks on its diagonal in another basis, and else eigenvalues up to 0.5."""
    generator = torch.Generator().manual_seed(seed)
    inner = torch.block_diag(*blocks).double()
    rest = torch.diag(torch.linspace(-0.5, 0.5, d - len(inner), dtype=torch.float64))
    basis = torch.eye(d, dtype=torch.float64) + skew * torch.randn(d, d, generator=generator).double() / d**0.5
    matrix: Tensor = basis @ torch.block_diag(inner, rest) @ basis.inverse()
    return matrix


def rotation(value: complex) -> Tensor:
    """A 2 × 2 block with this eigenvalue and its conjugate."""
    return torch.tensor([[value.real, -value.imag], [value.imag, value.real]])


def test_complex_pairs_are_found_as_they_are() -> None:
    slow, fast = 0.99 * cmath.exp(0.1j), 0.98 * cmath.exp(2j)
    matrix = similar([rotation(slow), rotation(fast), torch.tensor([[0.97]])], d=200)
    found = advanced(Arnoldi, matrix[None].float(), 24).look(5)
    expected = torch.tensor([0.99, 0.99, 0.98, 0.98, 0.97])
    torch.testing.assert_close(found.values[0].abs(), expected, atol=1e-5, rtol=0)
    angles = found.values[0].angle().abs()
    torch.testing.assert_close(angles, torch.tensor([0.1, 0.1, 2.0, 2.0, 0.0]), atol=1e-4, rtol=0)
    assert (found.residuals < 1e-4).all()


def test_the_diagonal_of_blocks_alone_to_seven_digits() -> None:
    blocks = [rotation(0.99 * cmath.exp(0.1j)), rotation(0.98 * cmath.exp(2j)), torch.tensor([[0.97]])]
    matrix = torch.block_diag(*blocks, torch.diag(torch.linspace(0, 0.3, 95)))
    found = advanced(Arnoldi, matrix[None], 24).look(3)
    # float32 products, a normal matrix: the error is a few units in the last place
    torch.testing.assert_close(found.values[0].abs(), torch.tensor([0.99, 0.99, 0.98]), atol=1e-6, rtol=0)


@pytest.mark.parametrize("d", [1, 2, 7, 13])
def test_a_small_matrix_is_found_whole(d: int) -> None:
    matrices = torch.randn(3, d, d, generator=torch.Generator().manual_seed(d))
    found = advanced(Arnoldi, matrices, d).look(d)
    dense = torch.linalg.eigvals(matrices.double()).abs().sort(dim=1, descending=True).values
    torch.testing.assert_close(found.values.abs().double(), dense, atol=1e-4, rtol=1e-4)
    assert found.ended.all()
    singular = advanced(GolubKahan, matrices, d).look(d)
    torch.testing.assert_close(singular.values, torch.linalg.svdvals(matrices), atol=1e-5, rtol=1e-5)
    assert singular.ended.all()


def test_residuals_are_those_of_the_eigenvectors() -> None:
    matrices = torch.stack([similar([torch.tensor([[0.9]])], 50, seed, skew=0.8) for seed in range(4)]).float()
    basis = advanced(Arnoldi, matrices, 9)
    assert isinstance(basis, Arnoldi)
    found = basis.look(3)
    for row in range(4):
        values, vectors = torch.linalg.eig(basis.small[row, :9, :9])
        order = values.abs().argsort(descending=True, stable=True)[:3]
        y = basis.vectors[row, :9].T.to(torch.complex128) @ vectors[:, order]
        beyond = (matrices[row].to(torch.complex128) @ y - y * values[order]).norm(dim=0)
        torch.testing.assert_close(found.residuals[row].double(), beyond, atol=1e-6, rtol=1e-3)


def test_defective_eigenvalues_have_honest_residuals() -> None:
    """A Jordan block: rounding of 1e-7 moves its eigenvalue by the fourth root of that, while residuals stay small."""
    jordan = 0.9 * torch.eye(4) + torch.diag(torch.ones(3), 1) * 0.5
    found = advanced(Arnoldi, similar([jordan], 80)[None].float(), 32).look(4)
    assert (found.residuals < 1e-4).all()
    assert (found.values[0].abs() - 0.9).abs().max() < 1e-1


def test_clustered_eigenvalues_show_their_largest() -> None:
    cluster = torch.diag(0.9 + 1e-4 * torch.arange(10))
    found = advanced(Arnoldi, similar([cluster], 100)[None].float(), 40).look(1)
    assert abs(float(found.values[0, 0].abs()) - 0.9009) < 1e-3


def test_of_an_eigenvalue_that_is_there_many_times_one_is_found() -> None:
    found = advanced(Arnoldi, torch.eye(30).expand(2, 30, 30), 12).look(6)
    assert found.ended.all()
    assert (found.values[:, 0] == 1).all()
    assert found.values[:, 1:].isnan().all()
    assert found.residuals[:, 1:].isinf().all()


def test_zero_and_what_is_not_finite_keep_to_their_rows() -> None:
    matrices = torch.randn(4, 20, 20, generator=torch.Generator().manual_seed(1)) / 20**0.5
    alone = advanced(Arnoldi, matrices[3:], 16).look(2)
    matrices[0] = 0
    matrices[1, 3, 4] = torch.nan
    matrices[2, 0, 0] = torch.inf
    for kind in (Arnoldi, GolubKahan):
        found = advanced(kind, matrices, 16).look(2)
        assert found.values[0, 0] == 0
        assert found.ended[0]
        assert found.values[1:3].isnan().all()
        assert found.ended[1:3].all()
        assert found.values[3].isfinite().all()
        assert not found.ended[3]
    torch.testing.assert_close(advanced(Arnoldi, matrices, 16).look(2).values[3:], alone.values, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("kind", [Arnoldi, GolubKahan])
def test_bases_that_are_gathered_go_on_as_if_they_had_been_together(kind: type[Arnoldi] | type[GolubKahan]) -> None:
    matrices = torch.randn(5, 40, 40, generator=torch.Generator().manual_seed(2)) / 40**0.5
    whole = advanced(kind, matrices, 10).look(3)
    parts = [
        (advanced(kind, matrices[rows], 6), torch.tensor(chosen))
        for rows, chosen in (([0, 1], [1]), ([2, 3, 4], [0, 2]))
    ]
    together: Basis = gather(parts, 10)
    assert together.steps == 6
    for _ in range(4):
        together.step(Dense(matrices[[1, 2, 4]]))
    found = together.look(3)
    torch.testing.assert_close(found.values, whole.values[[1, 2, 4]], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found.residuals, whole.residuals[[1, 2, 4]], atol=1e-5, rtol=1e-3)


def test_solutions_of_linear_systems() -> None:
    generator = torch.Generator().manual_seed(0)
    matrices = torch.randn(3, 30, 30, generator=generator) / 30**0.5
    right = torch.randn(3, 30, generator=generator)
    right[2] = 0
    found = solve(Dense(matrices), right, 30)
    exact = torch.linalg.solve(torch.eye(30).double() - matrices.double(), right.double())
    torch.testing.assert_close(found.double(), exact, atol=2e-4, rtol=2e-4)
    assert not found[2].any()


def test_a_few_products_solve_what_lies_in_a_few_dimensions() -> None:
    generator = torch.Generator().manual_seed(1)
    left, right = torch.randn(2, 50, 3, generator=generator), torch.randn(2, 3, 50, generator=generator)
    matrices = left @ right / 50
    b = torch.randn(2, 50, generator=generator)
    found = solve(Dense(matrices), b, 4)
    torch.testing.assert_close(found - Dense(matrices).times(found), b, atol=1e-4, rtol=1e-4)

"""The passes in torch against automatic differentiation; and on compiled CPU kernels, against those."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from memrecon_fast.reconstruction import passes
from memrecon_fast.reconstruction import weights as blocks
from memrecon_fast.reconstruction.passes import Kinked, plain
from memrecon_fast.reconstruction.rows import Rows
from memrecon_fast.reconstruction.weights import Drawn
from tests.helpers.kinked import (
    KINDS,
    assert_close,
    check_against_plain,
    check_zeros,
    kinked,
    random,
    rows_of,
)

_C: Any = pytest.importorskip("memrecon_fast._C", reason="built without the C++ kernels")
cpp: Any = pytest.importorskip("memrecon_fast.reconstruction.passes.cpp")

SHAPES = [(1, 1, 1), (3, 1, 2), (1, 40, 9), (97, 5, 3), (64, 7, 8), (7, 3, 1000), (1000, 100, 21), (255, 9, 16)]
SHAPES += [(257, 33, 25), (300, 2, 65), (513, 768, 11), (40, 3000, 24), (4, 9000, 3)]  # parts of rows, and of blocks


@pytest.fixture(params=_C.instruction_sets())
def instruction_set(request: pytest.FixtureRequest) -> Iterator[str]:
    usual = _C.instruction_set()
    _C.use_instruction_set(request.param)
    yield request.param
    _C.use_instruction_set(usual)


@pytest.mark.parametrize("kind", KINDS)
def test_plain_is_what_automatic_differentiation_says(kind: tuple[bool, bool], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "_BLOCK_BYTES", 1)  # 64 rows at a time
    rows, at = rows_of(130, 5, torch.float32), kinked(5, 3, kind)
    dense = rows.scale * rows.weights[:].double()

    def model(columns: Tensor) -> Tensor:
        products = dense @ columns
        bent = products.clamp_min(0) if at.rectified else products.abs()
        if at.last_is_linear:
            bent = torch.cat([bent[:, :-1], products[:, -1:]], dim=1)
        found: Tensor = bent @ at.factors
        return found

    jacobian = torch.autograd.functional.jacobian(model, at.columns).reshape(130, -1)
    residual, sides, gradient = plain.linearise(rows, at)
    assert_close(residual, rows.theta - model(at.columns))
    assert_close(gradient.flatten(), jacobian.T @ residual)
    step, slopes = random(5, 3, seed=5), random(130, 3, seed=7)
    assert_close(plain.product(rows, at.factors, sides, step).flatten(), jacobian.T @ (jacobian @ step.flatten()))
    of_slopes = (slopes[:, None] * dense[:, :, None]).reshape(130, -1)
    assert_close(plain.product_of_slopes(rows, slopes, step).flatten(), of_slopes.T @ (of_slopes @ step.flatten()))


@pytest.mark.usefixtures("instruction_set")
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", KINDS)
def test_shapes(shape: tuple[int, int, int], kind: tuple[bool, bool]) -> None:
    p, d, m = shape
    check_against_plain(cpp, rows_of(p, d, torch.float32), kinked(d, m, kind))


@pytest.mark.usefixtures("instruction_set")
@pytest.mark.parametrize("stored_as", [torch.float64, torch.float16, None])
def test_ways_to_have_v(stored_as: torch.dtype | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "_BLOCK_BYTES", 1)
    check_against_plain(cpp, rows_of(150, 6, stored_as), kinked(6, 3))


@pytest.mark.usefixtures("instruction_set")
def test_v_that_is_not_contiguous_and_the_first_rows_alone() -> None:
    rows = Rows(random(6, 70, seed=1).float().T, random(70, seed=2), 0.5)
    check_against_plain(cpp, rows, kinked(6, 3))
    check_against_plain(cpp, rows_of(70, 6, torch.float32).first(41), kinked(6, 3))


@pytest.mark.usefixtures("instruction_set")
@pytest.mark.parametrize("kind", KINDS)
def test_zeros_signs_of_zeros_and_denormal_numbers(kind: tuple[bool, bool]) -> None:
    check_zeros(cpp, kind)


def everything(rows: Rows, model: Kinked) -> list[Tensor]:
    residual, sides, gradient = cpp.linearise(rows, model)
    step, slopes = random(*model.columns.shape, seed=6), random(rows.count, len(model.factors), seed=7)
    products = cpp.product(rows, model.factors, sides, step), cpp.product_of_slopes(rows, slopes, step)
    return [residual, sides, gradient, *products]


def test_the_same_bits_with_and_without_threads_and_on_all_processors_with_fused_multiply_add() -> None:
    rows, model = rows_of(40_000, 20, torch.float32), kinked(20, 9)
    usual, threads = _C.instruction_set(), torch.get_num_threads()
    found = []
    for name in _C.instruction_sets()[1:]:
        for number in (1, 2, 3, 100):
            _C.use_instruction_set(name)
            torch.set_num_threads(number)
            found.append(everything(rows, model))
    _C.use_instruction_set(usual)
    torch.set_num_threads(threads)
    assert found
    for one in found[1:]:
        assert all(torch.equal(its, first) for its, first in zip(one, found[0], strict=True))


@pytest.mark.usefixtures("instruction_set")
def test_nothing_is_written_beside_the_buffers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything that comes out lies between two guards."""
    guards: list[Tensor] = []

    def guarded(*shape: int, dtype: torch.dtype) -> Tensor:
        size = int(torch.Size(shape).numel())
        memory = torch.full((size + 128,), 77, dtype=dtype)
        guards.append(memory)
        return memory[64:-64].view(shape)

    monkeypatch.setattr(cpp.torch, "empty", guarded)
    monkeypatch.setattr(cpp.torch, "zeros_like", lambda like: guarded(*like.shape, dtype=like.dtype).zero_())
    for p, d, m in SHAPES:
        everything(rows_of(p, d, torch.float64), kinked(d, m))
    assert len(guards) == 5 * len(SHAPES)
    assert all(bool((memory[:64] == 77).all() and (memory[-64:] == 77).all()) for memory in guards)


def test_nan_is_not_hidden() -> None:
    rows, model = rows_of(70, 6, torch.float32), kinked(6, 3)
    assert isinstance(rows.weights, Tensor)
    rows.weights[13, 2] = torch.nan
    residual, _, gradient = cpp.linearise(rows, model)
    assert residual.isnan().nonzero().flatten().tolist() == [13]
    assert gradient.isnan().all()


def test_what_the_kernels_cannot_have_is_refused() -> None:
    rows, model = rows_of(70, 6, torch.float32), kinked(6, 3)
    _, sides, _ = cpp.linearise(rows, model)
    with pytest.raises(ValueError, match="3 columns of 5 numbers do not belong to 3 factors and rows of 6"):
        cpp.linearise(rows, kinked(5, 3))
    with pytest.raises(ValueError, match="3 columns of 6 numbers do not belong to 2 factors"):
        cpp.product(rows, model.factors[:2], sides, model.columns)
    with pytest.raises(ValueError, match="sides of another linearisation"):
        cpp.product(rows, model.factors, sides[:, :3], model.columns)
    with pytest.raises(ValueError, match="sides of another linearisation"):
        cpp.product(rows, model.factors, sides[:69], model.columns)
    with pytest.raises(TypeError, match=r"contiguous float64 on the CPU, not torch\.float32"):
        cpp.linearise(rows, Kinked(model.columns.float(), model.factors, False, True))
    with pytest.raises(ValueError, match="60 rows of slopes for 70"):
        cpp.product_of_slopes(rows, random(60, 3, seed=7), model.columns)
    with pytest.raises(TypeError, match="contiguous float64"):
        cpp.product_of_slopes(rows, random(3, 70, seed=7).T, model.columns)


def test_without_the_kernels_torch_is_used_and_the_user_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("memrecon_fast.ops._why_no_cpp", lambda: "built without")
    passes.choose.cache_clear()
    try:
        with pytest.warns(RuntimeWarning, match="compiled kernels are not available"):
            assert passes.choose() is plain
    finally:
        passes.choose.cache_clear()
    monkeypatch.undo()
    assert passes.choose() is cpp


def test_drawn_rows_are_the_same_in_parts() -> None:
    whole = Drawn(700, 300, seed=5)  # more than one block
    found = everything(Rows(whole, random(700, seed=2)), kinked(300, 4))
    for its, expected in zip(found, everything(Rows(whole[:], random(700, seed=2)), kinked(300, 4)), strict=True):
        assert_close(its.double(), expected.double())

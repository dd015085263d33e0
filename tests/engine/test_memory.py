"""What slots take of memory, and what is said where there is too little."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from memrecon_fast import Settings, autoencoders, recover
from memrecon_fast.engine import memory
from memrecon_fast.engine.inflight import InFlight
from memrecon_fast.engine.memory import ARRIVALS, BYTES_OF_ARRIVALS, Need, arrivals_of, bytes_of_slot, slots_by_default
from memrecon_fast.engine.samples import Sample
from memrecon_fast.engine.solver import Solver
from memrecon_fast.engine.table import Group
from memrecon_fast.recovery import prepare_iterate, prepare_recover

SHAPE = (3, 8, 8)
PIXELS = 192


def halve(images: Tensor) -> Tensor:
    return images * 0.5


def with_free(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(memory, "free_memory", lambda device: size)


def solver_of(**settings: Any) -> Solver:
    return prepare_recover(halve, SHAPE, Settings(**settings))


def bytes_of(state: Any) -> int:
    return sum(tensor.nbytes for tensor in state.tensors().values())


@pytest.mark.parametrize("slots", [1, 2, 3, 5, 33])
def test_a_table_has_as_many_rows_as_slots_and_needs_what_was_said(slots: int) -> None:
    for solver in (solver_of(), solver_of(solver="paper"), prepare_iterate(halve, SHAPE)):
        group = Group(solver, slots, None)
        assert len(group.seats) == group._table.rows == slots
        assert bytes_of_slot(solver) == bytes_of(solver.allocate(1))
        through = solver.prox.block_sizes(slots)[-1]
        taken = bytes_of(group._table) + bytes_of(group._arrivals) + 8 * PIXELS * through
        assert Need(solver).least(slots) == taken


def test_a_solver_before_it_counts_too() -> None:
    usual, progressive = (Need(solver_of(precision=precision)) for precision in ("float32", "progressive"))
    assert progressive.least(8) == 2 * usual.least(8)


def test_arrivals_take_little_memory() -> None:
    assert arrivals_of(1000, 10**9) == ARRIVALS
    assert arrivals_of(1000, 3) == 3
    assert arrivals_of(BYTES_OF_ARRIVALS // 5, 64) == 5
    assert arrivals_of(2 * BYTES_OF_ARRIVALS, 64) == 1  # images of 3000 x 3000 pixels


def test_what_does_not_fit_is_refused_with_the_number_that_would(monkeypatch: pytest.MonkeyPatch) -> None:
    solver = solver_of()
    with_free(monkeypatch, Need(solver).least(7))
    assert InFlight(solver, 7).slots == 7
    message = r"^slots=1000000000 for images of shape \(3, 8, 8\) take at least [\d.]+ GB of memory, and [\d.]+ kB are "
    for slots in (8, 10**9, 10**15):
        start = message.replace("1000000000", str(slots)) if slots > 8 else "^slots=8 for images"
        with pytest.raises(ValueError, match=rf"{start}.*free: at most 7 fit$"):
            InFlight(solver, slots)
    with_free(monkeypatch, Need(solver).least(1) - 1)
    with pytest.raises(ValueError, match=r"not even one fits: the images are too large$"):
        InFlight(solver, 1)


def test_no_list_is_made_of_many_slots(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = solver_of().prox.block_sizes(10**15)
    assert sizes[0] == solver_of().prox.row_multiple
    assert sizes[-1] >= 10**15


def test_slots_by_default_fit_into_half_of_the_free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    solver = solver_of()
    assert slots_by_default(solver) == 256
    need = Need(solver)
    multiple = solver.prox.row_multiple
    assert multiple < 50
    with_free(monkeypatch, 2 * need.estimate(50))
    assert slots_by_default(solver) == 50
    assert InFlight(solver).slots == 50
    with_free(monkeypatch, need.least(2))
    assert slots_by_default(solver) == 1


@pytest.mark.parametrize("backend", ["torch", "auto"])
def test_a_single_slot_has_the_bits_of_many(backend: str) -> None:
    """A row alone, of more pixels than torch sums in one thread, and a convolution that is given several anyway."""
    shape, threads = (1, 40, 1024), torch.get_num_threads()
    images = torch.rand(5, *shape, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    autoencoder = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), nn.Softplus()).eval()
    results = []
    torch.set_num_threads(2)
    try:
        for solver, slots in itertools.product(("paper", "accelerated"), (1, 3, 4)):
            settings = Settings(solver=solver, gamma=0.5, max_outer_iterations=2, **_few(solver))
            results.append(recover(autoencoder, images, settings=settings, backend=backend, slots=slots))
    finally:
        torch.set_num_threads(threads)
    for one, other in itertools.chain(itertools.pairwise(results[:3]), itertools.pairwise(results[3:])):
        assert torch.equal(one.images, other.images)
        for name in ("residual", "fixed_point_mse", "misfit", "explained", "evaluations"):
            torch.testing.assert_close(getattr(one, name), getattr(other, name), rtol=0, atol=0, equal_nan=True)


def _few(solver: str) -> dict[str, Any]:
    return {"inner_iterations": 3} if solver == "paper" else {"memory": 0, "settle": 0}


def test_large_images_take_few_buffers_of_their_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two slots: their rows and one to load into, 66 bytes a pixel each, and eight images through f."""
    solver = prepare_recover(halve, (3, 500, 500))
    image = 4 * 3 * 500 * 500
    assert Need(solver).least(2) / image == pytest.approx(3 * 66 / 4 + 2 * solver.prox.row_multiple, rel=1e-3)


def test_samples_are_taken_as_there_are_slots() -> None:
    solver = prepare_recover(autoencoders.FullyConnected(SHAPE, 16, 2).eval(), SHAPE, Settings(max_outer_iterations=1))
    taken = 0

    def samples() -> Any:
        nonlocal taken
        for index in range(9):
            taken += 1
            yield Sample(index, torch.rand(SHAPE))

    stream = InFlight(solver, 2).stream(samples())
    next(stream)
    assert taken <= 4
    stream.close()

from __future__ import annotations

import dataclasses
import gc
import math
import os
import weakref
from collections.abc import Iterator
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

import memrecon_fast as mf
from memrecon_fast import Settings, Status, autoencoders, degradation
from memrecon_fast.engine.cuda_graph import Capture
from memrecon_fast.engine.inflight import InFlight, Schedule
from memrecon_fast.engine.prox import Prox, vector_entries
from memrecon_fast.engine.samples import Batch, Finished, Sample
from memrecon_fast.engine.trial import TRIAL_ROWS
from memrecon_fast.recovery import prepare_iterate, prepare_recover
from memrecon_fast.results import RUNNING
from tests.helpers.memorised import Memorised

SHAPE = (3, 4, 4)
BLOCK = vector_entries()
"""The fewest rows that an autoencoder of which nothing is known, such as `Codebook`, is given on this processor."""


class Codebook:
    """Maps an image to the code that is nearest in the first row of its last channel.

    For the restless codes the estimated mask of the first channel never settles (γ = 0.5): where it is kept, s falls
    below zero and the answer is three times the code, so the rule erases it; where it is erased, the answer is 1.5
    times the code, so the rule keeps it.
    """

    def __init__(self, codes: int, restless: int = 0) -> None:
        self.codes = torch.rand(codes, *SHAPE, generator=torch.Generator().manual_seed(0)) * 0.9 + 0.05
        self.restless = torch.arange(codes) < restless
        self.rows = self.calls = 0

    def __call__(self, x: Tensor) -> Tensor:
        self.rows += len(x)
        self.calls += 1
        nearest = torch.cdist(x[:, -1, 0], self.codes[:, -1, 0]).argmin(dim=1)
        answer = self.codes[nearest]
        first = answer[:, 0]
        answer[:, 0] = torch.where(
            self.restless[nearest, None, None], torch.where(x[:, 0] < -0.1 * first, 3 * first, 1.5 * first), first
        )
        return answer


def test_slots_do_the_work_that_the_images_need_and_little_more() -> None:
    """1,000 images in 64 slots, 1 % of which never converge: rows through f against the images' own evaluations."""
    codebook = Codebook(1000, restless=10)
    shuffled = torch.randperm(1000, generator=torch.Generator().manual_seed(1))
    degraded = degradation.erase(codebook.codes, degradation.make_mask("center", SHAPE))[shuffled]
    result = mf.recover(codebook, degraded, settings=Settings(solver="paper", max_outer_iterations=40), slots=64)
    endless = result.status == Status.MAX_ITERATIONS
    assert endless[codebook.restless[shuffled]].all()
    assert 10 <= endless.sum() <= 20  # an image of another code may end at a restless one
    assert (result.outer_iterations[endless] == 40).all()
    needed = int(result.evaluations.sum())
    assert codebook.rows <= 1.15 * needed
    assert codebook.calls <= 1.1 * needed / 64 + 12 * 39  # nearly full, until only the last images are left
    batches = [result.evaluations[i : i + 64] for i in range(0, 1000, 64)]
    assert sum(len(batch) * int(batch.max()) for batch in batches) > 1.5 * needed  # if each waited for its slowest


@pytest.mark.parametrize("backend", [name for name, state in mf.backends().items() if state == "available"])
@pytest.mark.parametrize(
    "kind", ["fully connected, random", "fully connected, zeros", "U-Net, zeros", "odd fully connected, random"]
)
def test_a_result_is_bit_identical_alone_in_any_batch_and_in_any_order(
    memorised: Memorised, backend: str, kind: str
) -> None:
    images = torch.cat([memorised.members, memorised.controls])
    shape = images.shape[1:]
    samples = [Sample(i, y) for i, y in enumerate(degradation.erase(images, degradation.make_mask("random-80", shape)))]
    architecture, initial_mask = kind.split(", ")
    if architecture == "U-Net":  # untrained: what is tested are its convolutions
        autoencoder: nn.Module = autoencoders.UNet(shape, (8, 16), "softplus").eval()
        settings = Settings(solver="paper", gamma=1.0, max_outer_iterations=6, initial_mask=initial_mask)
    elif architecture == "odd fully connected":  # its Softplus has left-overs unless the rows are whole vectors
        autoencoder = autoencoders.FullyConnected(shape, 51, 4, "softplus").eval()
        settings = Settings(solver="paper", gamma=0.5, max_outer_iterations=6, initial_mask=initial_mask)
    else:
        autoencoder = memorised.autoencoder
        settings = Settings(solver="paper", gamma=0.1, max_outer_iterations=12, initial_mask=initial_mask)
    solver = prepare_recover(autoencoder, shape, settings, backend=backend)

    def run(samples: list[Sample], slots: int) -> dict[int, Finished]:
        return {one.index: one for one in InFlight(solver, slots).stream(samples)}

    together = run(samples, 32)
    others = [
        run(samples, 16),
        run(samples[::-1], 16),
        run(samples[3:24], 32),
        run([samples[i] for i in torch.randperm(32, generator=torch.Generator().manual_seed(3))], 16),
        {index: one for sample in samples[::5] for index, one in run([sample], 64).items()},
    ]
    for other in others:
        for index, one in other.items():
            assert same(one, together[index])
    if autoencoder is memorised.autoencoder:
        assert len({one.outer_iterations for one in together.values()}) > 1  # images leave at different times


RETRIES = Settings(solver="accelerated", gamma=(0.5, 1.0), starts=2, max_outer_iterations=12, recognized_below=1e-11)
"""Members reach such a score in some attempts; controls are tried four times."""


@pytest.mark.parametrize("backend", ["torch", "cpp"])
@pytest.mark.parametrize("known", [False, True])
def test_accelerated_results_are_bit_identical_in_any_slots_and_any_order(
    memorised: Memorised, backend: str, known: bool
) -> None:
    images = torch.cat([memorised.members[:7], memorised.controls[:3]])
    shape = images.shape[1:]
    masks = [degradation.make_mask("random-50", shape, seed) if known else None for seed in range(10)]
    kept = torch.stack([degradation.make_mask("random-50", shape, seed) for seed in range(10)])
    samples = [
        Sample(i, y, mask) for i, (y, mask) in enumerate(zip(degradation.erase(images, kept), masks, strict=True))
    ]
    solver = prepare_recover(memorised.autoencoder, shape, RETRIES, known_masks=known, backend=backend)

    def run(samples: list[Sample], slots: int, solver: Any = solver) -> dict[int, Finished]:
        results = list(InFlight(solver, slots).stream(samples))
        assert len(results) == len(samples)
        return {one.index: one for one in results}

    class AfterOthers(type(solver)):  # type: ignore[misc]
        """Its slots hold what is no number, as of images that were there before."""

        def allocate(self, slots: int) -> Any:
            state = super().allocate(slots)
            for name in ("steps", "residuals", "best", "x", "s"):
                getattr(state, name).fill_(torch.nan)
            return state

    together = run(samples, 64)
    names = [field.name for field in dataclasses.fields(cast(Any, solver))]
    after_others = AfterOthers(**{name: getattr(solver, name) for name in names})
    permuted = [samples[i] for i in torch.randperm(10, generator=torch.Generator().manual_seed(3))]
    runs = [run(samples, 1), run(permuted, 4), run(samples[::-1], 7), run(samples[2:9], 64)]
    runs += [run(samples, 4, after_others)]
    runs += [run([sample], slots) for sample, slots in zip(samples[::4], (1, 7, 64), strict=True)]
    for other in runs:
        for index, one in other.items():
            assert same(one, together[index])
    assert len({one.attempts for one in together.values()}) > 1
    assert len({one.evaluations for one in together.values()}) > 1
    assert sum(one.accepted for one in together.values()) > 0


def capture_nothing(_: torch.device) -> Capture:
    return lambda work: work


SCHEDULES = [
    Schedule(groups=1, lag=1, ahead=0, make_capture=None),
    Schedule(groups=2, lag=0, ahead=3, make_capture=None),
    Schedule(groups=2, lag=1, ahead=5, make_capture=capture_nothing),
    Schedule(groups=3, lag=2, ahead=1, make_capture=None),
]


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("kind", ["random", "zeros", "progressive", "iterate", "accelerated", "tried again"])
def test_the_schedule_of_a_gpu_changes_no_result(memorised: Memorised, schedule: Schedule, kind: str) -> None:
    """Groups in turn, flags read late, samples read ahead, blocks replayed: with the slots of a CPU, bit for bit."""
    images = torch.cat([memorised.members, memorised.controls])
    shape = images.shape[1:]
    samples = [Sample(i, y) for i, y in enumerate(degradation.erase(images, degradation.make_mask("corner", shape)))]
    solver: Any
    if kind == "iterate":
        solver = prepare_iterate(memorised.autoencoder, shape, max_iterations=40)
    else:
        choices: dict[str, dict[str, Any]] = {
            "random": {"solver": "paper"},
            "zeros": {"solver": "paper", "initial_mask": "zeros"},
            "progressive": {"solver": "paper", "precision": "progressive"},
            "accelerated": {"solver": "accelerated", "gamma": 0.5, "precision": "progressive"},
            "tried again": {"solver": "accelerated", "gamma": (0.5, 1.0), "recognized_below": 1e-12},
        }
        settings = Settings(**choices[kind], max_outer_iterations=24)
        solver = prepare_recover(memorised.autoencoder, shape, settings)
    expected = {one.index: one for one in InFlight(solver, 12).stream(samples)}
    in_flight = InFlight(solver, 12, schedule)
    for _ in range(2):  # the slots are used again
        got = {one.index: one for one in in_flight.stream(samples)}
        assert got.keys() == expected.keys()
        assert all(same(got[index], expected[index]) for index in expected)
    assert in_flight.execution == ("CUDA graph" if schedule.make_capture else "eager")


def test_blocks_of_several_iterations_change_no_result(memorised: Memorised) -> None:
    shape = (3, 8, 8)
    samples = [Sample(i, y) for i, y in enumerate(memorised.members * 0.9)]
    solver = prepare_iterate(memorised.autoencoder, shape, max_iterations=50)
    results = [
        {finished.index: finished for finished in InFlight(one, 8).stream(samples)}
        for one in (solver, dataclasses.replace(solver, iterations_per_block=16))
    ]
    assert all(same(results[0][index], results[1][index]) for index in range(len(samples)))
    assert len({finished.outer_iterations for finished in results[0].values()}) > 1


def test_a_slot_whose_image_is_done_stays_as_it_is(memorised: Memorised) -> None:
    samples = [
        Sample(i, y)
        for i, y in enumerate(degradation.erase(memorised.members, degradation.make_mask("center", (3, 8, 8))))
    ]
    shape = (3, 8, 8)
    solvers: list[Any] = [
        prepare_recover(memorised.autoencoder, shape, Settings(solver="paper")),
        prepare_iterate(memorised.autoencoder, shape, max_iterations=9),
        prepare_recover(memorised.autoencoder, shape, Settings(solver="accelerated", gamma=0.5)),
    ]
    for solver in solvers:
        slots = solver.allocate(16)
        done: dict[int, dict[str, Tensor]] = {}
        with torch.inference_mode():
            solver.admit(slots, [solver.stage(sample) for sample in samples])
            for _ in range(30):
                solver.advance(slots)
                for slot in (slots.status != RUNNING).nonzero().flatten().tolist():
                    now = {n: t[slot].clone() for n, t in slots.tensors().items() if n not in ("s", "coefficients")}
                    before = done.setdefault(slot, now)
                    assert all(torch.equal(before[n], now[n]) or now[n].isnan().all() for n in now)
        assert len(done) > 8


class LittleMemory:
    """Runs out of memory with more than `most` rows; counts how often."""

    def __init__(self, codebook: Codebook, most: int) -> None:
        self.codebook = codebook
        self.most = most
        self.failures = 0

    def __call__(self, x: Tensor) -> Tensor:
        if len(x) > self.most:
            self.failures += 1
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 3.00 GiB")
        return self.codebook(x)


@pytest.mark.parametrize("most_later", [4 * BLOCK, 2 * BLOCK, BLOCK])
def test_when_memory_runs_out_fewer_slots_go_on_and_nothing_is_lost(most_later: int) -> None:
    codebook = Codebook(200)
    degraded = degradation.erase(codebook.codes, degradation.make_mask("center", SHAPE))
    expected = mf.recover(codebook, degraded)
    f = LittleMemory(codebook, most=4 * BLOCK)
    in_flight = InFlight(prepare_recover(f, SHAPE), 6 * BLOCK + 4)
    got: dict[int, Finished] = {}

    def run() -> None:
        for one in in_flight.stream(Sample(i, y) for i, y in enumerate(degraded)):
            assert one.index not in got
            got[one.index] = one
            f.most = most_later  # another program takes memory while images are in flight

    with pytest.warns(RuntimeWarning, match=r"memory ran out with \d+ slots; going on with \d+"):
        run()
    assert f.failures == {4 * BLOCK: 1, 2 * BLOCK: 2, BLOCK: 3}[most_later]
    assert in_flight.slots <= most_later
    assert sorted(got) == list(range(200))
    for index, one in got.items():
        assert torch.equal(one.image, expected.images[index])
        assert one.outer_iterations == expected.outer_iterations[index]


class LessMemoryLater:
    """Runs out of memory with more than `most` rows, from its call number `last` on."""

    def __init__(self, autoencoder: nn.Module, most: int) -> None:
        self.autoencoder = autoencoder
        self.most = most
        self.last: float = math.inf
        self.calls = 0

    def __call__(self, x: Tensor) -> Tensor:
        self.calls += 1
        if self.calls >= self.last and len(x) > self.most:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return self.autoencoder(x)  # type: ignore[no-any-return]


def test_when_memory_runs_out_attempts_go_on_where_they_were(memorised: Memorised) -> None:
    """In a block, or where estimates are scored: every image is tried as often, and ends at the same bits."""
    images = torch.cat([memorised.members[:12], memorised.controls[:4]])
    degraded = degradation.erase(images, degradation.make_mask("center", (3, 8, 8)))
    samples = [Sample(i, y) for i, y in enumerate(degraded)]
    f = LessMemoryLater(memorised.autoencoder, most=8)
    solver = prepare_recover(f, (3, 8, 8), RETRIES)
    f.calls = 0
    expected = {one.index: one for one in InFlight(solver, 16).stream(samples)}
    in_all = f.calls
    for last in (20, in_all // 3, in_all // 2):
        f.calls, f.last = 0, last
        with pytest.warns(RuntimeWarning, match="memory ran out with 16 slots; going on with 8"):
            got = list(InFlight(solver, 16).stream(samples))
        assert sorted(one.index for one in got) == list(range(16))
        assert all(same(one, expected[one.index]) for one in got)


def test_where_not_even_one_slot_fits_the_error_passes_through() -> None:
    f = LittleMemory(Codebook(4), most=BLOCK)
    solver = prepare_recover(f, SHAPE)
    f.most = 0
    with pytest.raises(torch.cuda.OutOfMemoryError), pytest.warns(RuntimeWarning, match="memory ran out"):
        list(InFlight(solver, 2 * BLOCK).stream([Sample(0, torch.zeros(SHAPE))]))


def test_memory_that_runs_out_where_the_images_are_read_is_not_the_slots_fault() -> None:
    def samples() -> Iterator[Sample]:
        yield Sample(0, torch.zeros(SHAPE))
        raise MemoryError("a huge picture")

    with pytest.raises(MemoryError, match="a huge picture"):
        list(InFlight(prepare_recover(Codebook(4), SHAPE), 8).stream(samples()))


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_images_that_are_done_are_handed_out_before_an_error_of_the_source(schedule: Schedule) -> None:
    codebook = Codebook(60)

    def samples() -> Iterator[Sample]:
        for index, image in enumerate(codebook.codes[:40]):
            yield Sample(index, image)
        raise OSError("image 40 cannot be read")

    settings = Settings(solver="paper", max_outer_iterations=1)  # so that all images in slots are done after a block
    stream = InFlight(prepare_recover(codebook, SHAPE, settings), 16, schedule).stream(samples())
    done: list[Finished] = []
    with pytest.raises(OSError, match="image 40 cannot be read"):
        done.extend(stream)
    share = -(-16 // schedule.groups)
    assert len(done) == 40 // share * share  # what was read together with the error never reached a slot


@pytest.mark.parametrize("fails", ["the source", "the autoencoder once", "the autoencoder for good"])
def test_images_that_are_done_are_handed_out_reviewed_before_an_error(memorised: Memorised, fails: str) -> None:
    images = torch.cat([memorised.members, memorised.controls])
    degraded = degradation.erase(images, degradation.make_mask("center", (3, 8, 8)))
    calls = last = 0

    def f(x: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        if calls == last or (calls > last > 0 and fails == "the autoencoder for good"):
            raise OSError("the machine is gone")
        return memorised.autoencoder(x)  # type: ignore[no-any-return]

    def samples(count: int) -> Iterator[Sample]:
        yield from (Sample(i, y) for i, y in enumerate(degraded[:count]))
        if count < 32:
            raise OSError("the machine is gone")

    solver = prepare_recover(f, (3, 8, 8), RETRIES)
    expected = {one.index: one for one in InFlight(solver, 8).stream(samples(32))}
    in_all, calls = calls, 0
    done: list[Finished] = []
    if fails != "the source":
        last = in_all // 2
    with pytest.raises(OSError, match="the machine is gone"):
        done.extend(InFlight(solver, 8).stream(samples(20 if fails == "the source" else 32)))
    assert 4 <= len(done) < 32
    assert all(same(one, expected[one.index]) for one in done)
    assert not any(math.isnan(one.score) for one in done)


def test_a_stream_that_is_closed_leaves_nothing_behind(memorised: Memorised) -> None:
    images = torch.cat([memorised.members, memorised.controls])
    degraded = degradation.erase(images, degradation.make_mask("center", (3, 8, 8)))
    closed = False

    def samples() -> Iterator[Sample]:
        nonlocal closed
        try:
            yield from (Sample(i, y) for i, y in enumerate(degraded))
        finally:
            closed = True

    in_flight = InFlight(prepare_recover(memorised.autoencoder, (3, 8, 8), RETRIES), 8)
    expected = {one.index: one for one in in_flight.stream(samples())}
    stream, closed = in_flight.stream(samples()), False
    first = next(stream)
    assert same(first, expected[first.index])
    stream.close()
    gc.collect()
    assert closed
    got = list(in_flight.stream([Sample(i, degraded[i]) for i in (5, 30)]))
    assert sorted(one.index for one in got) == [5, 30]
    assert all(same(one, expected[one.index]) for one in got)


def test_slots_are_given_back_at_once() -> None:
    """A GPU's memory must not wait for Python's collector of cycles."""
    in_flight = InFlight(prepare_recover(Codebook(4), SHAPE), 16, SCHEDULES[2])
    list(in_flight.stream([Sample(0, torch.zeros(SHAPE))]))
    table = weakref.ref(in_flight._groups[0]._table.x)
    gc.disable()
    try:
        del in_flight
        assert table() is None
    finally:
        gc.enable()


def test_two_streams_cannot_use_the_same_slots_at_once() -> None:
    codebook = Codebook(8)
    in_flight = InFlight(prepare_recover(codebook, SHAPE), 16)
    samples = [Sample(i, y) for i, y in enumerate(codebook.codes)]
    first = in_flight.stream(samples)
    next(first)
    with pytest.raises(RuntimeError, match="in use by another stream"):
        next(in_flight.stream(samples))
    first.close()
    assert len(list(in_flight.stream(samples))) == 8


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda net: net.train(), "autoencoder is in training mode"),
        (lambda net: net.requires_grad_(False)[1].weight.mul_(2), "1.weight was changed since the solver was prepared"),
        (lambda net: setattr(net[1], "weight", nn.Parameter(net[1].weight.clone())), "1.weight was changed"),
    ],
)
def test_an_autoencoder_that_was_changed_is_noticed(change: Any, message: str) -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(48, 48), nn.Unflatten(1, SHAPE)).eval()
    in_flight = InFlight(prepare_recover(net, SHAPE, Settings(solver="paper", max_outer_iterations=2)), 16)
    sample = Sample(0, torch.zeros(SHAPE))
    for _ in range(2):
        list(in_flight.stream([sample]))
    change(net)
    with pytest.raises(ValueError, match=message):
        list(in_flight.stream([sample]))


@pytest.mark.skipif(
    "ATEN_CPU_CAPABILITY" in os.environ, reason="torch's compiler goes wrong where its kernels use other instructions"
)
def test_a_compiled_autoencoder_works(memorised: Memorised) -> None:
    degraded = degradation.erase(memorised.members, degradation.make_mask("center", (3, 8, 8)))
    settings = Settings(solver="paper", max_outer_iterations=3)
    got = mf.recover(torch.compile(memorised.autoencoder), degraded, settings=settings)
    expected = mf.recover(memorised.autoencoder, degraded, settings=settings)
    # the compiler may sum in another order: 117 steps near attractors
    torch.testing.assert_close(got.images, expected.images, rtol=0, atol=1e-4)


def same(a: Finished, b: Finished) -> bool:
    """All that is known of the image, bit for bit; a NaN is a NaN."""
    for field in dataclasses.fields(Finished):
        one, other = getattr(a, field.name), getattr(b, field.name)
        if isinstance(one, Tensor):
            if not torch.equal(one.nan_to_num(12345), other.nan_to_num(12345)):
                return False
        elif one != other and not (math.isnan(one) and math.isnan(other)):
            return False
    return True


def test_an_image_that_turns_nan_is_retired_and_touches_no_other() -> None:
    """f always answers 0.5: then s of a kept entry tends to 4y − 1.5 (γ = 0.5), and only image 3's passes 1.5."""
    degraded = torch.rand(10, *SHAPE, generator=torch.Generator().manual_seed(0)) * 0.2 + 0.5
    degraded[3, 0, 0, 0] = 0.9

    def f(x: Tensor) -> Tensor:
        return torch.where(x[:, :1, :1, :1] > 1.5, math.nan, torch.full_like(x, 0.5))

    settings = Settings(solver="paper")
    result = mf.recover(f, degraded, settings=settings, slots=4)
    assert result.status[3] == Status.DIVERGED
    assert result.images[3].isnan().any()
    expected = mf.recover(lambda x: torch.full_like(x, 0.5), degraded, settings=settings, slots=4)
    assert result.outer_iterations[3] < expected.outer_iterations[3]
    others = torch.arange(10) != 3
    assert torch.equal(result.images[others], expected.images[others])
    assert (result.status[others] == Status.CONVERGED).all()


def test_samples_are_taken_only_as_slots_become_free() -> None:
    codebook = Codebook(3 * BLOCK)
    taken = 0

    def samples() -> Iterator[Sample]:
        nonlocal taken
        for index, image in enumerate(codebook.codes):
            taken += 1
            yield Sample(index, image)

    solver = prepare_recover(codebook, SHAPE)
    done = 0
    for _ in InFlight(solver, slots=BLOCK).stream(samples()):
        done += 1
        assert taken <= done + BLOCK + BLOCK  # in slots, and waiting to be scored together
    assert done == 3 * BLOCK


def test_the_state_is_allocated_once() -> None:
    """f is given the same memory in every block, whichever images are in flight."""
    codebook = Codebook(2 * BLOCK - 8)
    addresses = []

    def f(x: Tensor) -> Tensor:
        addresses.append(x.data_ptr())
        return codebook(x)

    solvers = [
        prepare_iterate(f, SHAPE, max_iterations=3),
        prepare_recover(f, SHAPE, Settings(solver="paper")),
        prepare_recover(f, SHAPE, Settings(solver="accelerated", gamma=0.5)),
    ]
    for solver in solvers:
        addresses.clear()
        in_flight = InFlight(solver, BLOCK, reviewed=False)  # a review scores in memory of its own
        samples = [Sample(i, x) for i, x in enumerate(codebook.codes)]
        assert sum(map(len, in_flight.batches(samples))) == 2 * BLOCK - 8  # without the check at the end
        assert len(addresses) >= 2
        assert len(set(addresses)) == 1


@pytest.mark.filterwarnings("ignore:memory ran out:RuntimeWarning")
@pytest.mark.parametrize("precision", ["float32", "progressive"])
@pytest.mark.parametrize("solver", ["paper", "accelerated"])
def test_where_memory_runs_out_as_images_leave_none_is_lost(
    solver: str, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of `progressive`, those leave first that bfloat16 is done with."""
    codebook = Codebook(6 * BLOCK + 4)
    prepared = prepare_recover(codebook, SHAPE, Settings(solver=solver, gamma=0.5, precision=precision))
    samples = [Sample(i, y) for i, y in enumerate(codebook.codes)]
    expected = {one.index: one for one in InFlight(prepared, 4 * BLOCK).stream(samples)}
    to_images = Prox.to_images
    calls = 0

    def failing(prox: Prox, rows: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        if calls in (2, 3):  # the masks of the first images that leave, then their estimates
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return to_images(prox, rows)

    monkeypatch.setattr(Prox, "to_images", failing)
    got = list(InFlight(prepared, 4 * BLOCK).stream(samples))
    assert calls > 3
    assert sorted(one.index for one in got) == list(range(6 * BLOCK + 4))
    assert all(torch.equal(one.image, expected[one.index].image) for one in got)


def test_where_memory_runs_out_as_estimates_are_compared_none_is_lost(
    memorised: Memorised, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Estimates that stay on the device are compared with those of earlier attempts there."""
    images = torch.cat([memorised.members, memorised.controls]).repeat(4, 1, 1, 1)
    degraded = degradation.erase(images, degradation.make_mask("center", (3, 8, 8)))
    settings = dataclasses.replace(RETRIES, max_outer_iterations=6)
    expected = mf.recover(memorised.autoencoder, degraded, settings=settings, slots=128)
    finished = Batch.finished
    failures = 0

    def failing(batch: Batch, row: int) -> Finished:
        nonlocal failures
        if batch.samples[row].attempt == 1 and row > 1 and not failures:  # tried before, and others were dealt with
            failures += 1
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return finished(batch, row)

    monkeypatch.setattr(Batch, "finished", failing)
    with pytest.warns(RuntimeWarning, match="memory ran out with 128 slots; going on with 64"):
        got = mf.recover(memorised.autoencoder, degraded, settings=settings, slots=128)
    assert failures == 1
    assert len(expected.attempts.unique()) > 1
    for field in dataclasses.fields(expected):
        one, other = getattr(got, field.name), getattr(expected, field.name)
        if isinstance(one, Tensor):
            assert torch.equal(one.nan_to_num(12345), other.nan_to_num(12345)), field.name


def test_images_on_the_autoencoders_device_stay_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """`recover` of what is there takes nothing through the host: no batch is unpacked, nor its pixels sent there."""
    codebook = Codebook(40)
    settings = Settings(gamma=0.5)  # a single attempt
    in_flight = InFlight(prepare_recover(codebook, SHAPE, settings), 16)
    expected = {one.index: one for one in in_flight.stream(Sample(i, y) for i, y in enumerate(codebook.codes))}

    def fail(*_: Any) -> Any:
        raise AssertionError("through the host")

    for owner, name in ((Prox, "to_images"), (Batch, "unpack"), (Batch, "finished"), (Tensor, "cpu")):
        monkeypatch.setattr(owner, name, fail)
    got = mf.recover(codebook, codebook.codes, settings=settings, slots=16)
    assert all(torch.equal(got.images[index], one.image) for index, one in expected.items())
    assert all(torch.equal(got.masks[index], one.mask) for index, one in expected.items())


def test_images_done_before_the_first_block_leave_at_once() -> None:
    """From an all-zeros mask the first outer iteration is shared: with one allowed, no image needs another pass."""
    codebook = Codebook(10)
    settings = Settings(solver="paper", initial_mask="zeros", max_outer_iterations=1)
    solver = prepare_recover(codebook, SHAPE, settings)
    shared, tried = 39 * BLOCK, 6 * TRIAL_ROWS + 2 * 4
    assert codebook.rows == shared + tried
    done = list(InFlight(solver, 10).batches(Sample(i, image) for i, image in enumerate(codebook.codes)))
    assert codebook.rows == shared + tried + BLOCK  # the scores
    results = [one for batch in done for one in batch]
    assert [one.outer_iterations for one in results] == [1] * 10
    assert [one.evaluations for one in results] == [0] * 10
    assert [one.status for one in results] == [Status.MAX_ITERATIONS] * 10


def test_results_are_ordinary_tensors_and_the_caller_is_left_in_its_own_mode() -> None:
    codebook = Codebook(8)
    modes = []

    def samples() -> Iterator[Sample]:
        for index, image in enumerate(codebook.codes):
            modes.append(torch.is_inference_mode_enabled())
            yield Sample(index, image)

    for one in InFlight(prepare_recover(codebook, SHAPE), 16).stream(samples()):
        one.image.clamp_(0, 1)
        assert not torch.is_inference_mode_enabled()
    assert modes == [False] * 8


def test_an_autoencoder_may_answer_in_memory_that_it_uses_again() -> None:
    codebook = Codebook(12)
    buffers: dict[int, Tensor] = {}

    def f(x: Tensor) -> Tensor:
        return buffers.setdefault(len(x), torch.empty(x.shape)).copy_(0.5 * x + 0.5 * codebook(x))

    for iterations in (7, 40):  # an odd and an even number of applications
        settings = Settings(solver="paper", initial_mask="zeros", inner_iterations=iterations)
        got = mf.recover(f, codebook.codes, settings=settings, slots=16)
        expected = mf.recover(lambda x: f(x).clone(), codebook.codes, settings=settings, slots=16)
        assert torch.equal(got.images, expected.images)


@pytest.mark.parametrize(
    ("sample", "slots", "message"),
    [
        (Sample(7, torch.zeros(3, 16)), 4, r"image 7 is of shape \(3, 16\), not \(3, 4, 4\)"),
        (Sample(7, torch.zeros(SHAPE), torch.ones(4, 4) > 0), 4, r"the mask of image 7 is of shape \(4, 4\)"),
        (Sample(7, torch.zeros(SHAPE)), 0, "slots must be at least 1, not 0"),
    ],
)
def test_bad_samples_and_slots_are_named(sample: Sample, slots: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        list(InFlight(prepare_recover(Codebook(2), SHAPE), slots).stream([sample]))

"""The GPU path from end to end; the kernels alone are in ops/*/test_triton_gpu.py."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import memrecon_fast as mf
from memrecon_fast import Settings, autoencoders, degradation, metrics, reference
from memrecon_fast.engine.inflight import InFlight, make_schedule
from memrecon_fast.engine.memory import slots_by_default
from memrecon_fast.engine.review import score
from memrecon_fast.engine.samples import Finished, Sample
from memrecon_fast.recovery import prepare_recover
from tests.helpers.memorised import Memorised

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")]
SHAPE = (3, 8, 8)
SETTINGS = Settings(solver="paper", max_outer_iterations=30)
ACCELERATED = Settings(solver="accelerated", max_outer_iterations=60)


@pytest.fixture(scope="module")
def on_gpu(memorised: Memorised) -> nn.Module:
    return copy.deepcopy(memorised.autoencoder).cuda()


@pytest.fixture(scope="module")
def images(memorised: Memorised) -> Tensor:
    return torch.cat([memorised.members, memorised.controls])


def degrade(images: Tensor, mask: str = "center") -> Tensor:
    return degradation.erase(images, degradation.make_mask(mask, tuple(images.shape[1:])))


def by_index(finished: Iterator[Finished]) -> dict[int, Finished]:
    return {one.index: one for one in finished}


def assert_same(got: dict[int, Finished], expected: dict[int, Finished]) -> None:
    assert got.keys() == expected.keys()
    for index, one in expected.items():
        other = got[index]
        assert torch.equal(other.image, one.image)
        assert torch.equal(other.mask, one.mask)
        assert (other.outer_iterations, other.status) == (one.outer_iterations, one.status)


@pytest.mark.parametrize("initial_mask", ["random", "zeros"])
@pytest.mark.parametrize("mask", degradation.MASKS)
def test_verdicts_are_those_of_the_cpu(
    memorised: Memorised, on_gpu: nn.Module, images: Tensor, mask: str, initial_mask: str
) -> None:
    degraded = degrade(images, mask)
    settings = dataclasses.replace(SETTINGS, initial_mask=initial_mask)
    results = [
        mf.recover(memorised.autoencoder, degraded, settings=settings),
        mf.recover(on_gpu, degraded.cuda(), settings=settings, backend="triton"),
        mf.recover(on_gpu, degraded.cuda(), settings=settings, backend="torch"),
        reference.recover(on_gpu, degraded.cuda(), settings=settings),
    ]
    for threshold in (metrics.ACCURATE_MSE, metrics.APPROXIMATE_MSE):
        verdicts = [metrics.mse(result.images.cpu(), images) < threshold for result in results]
        assert all(torch.equal(verdict, verdicts[0]) for verdict in verdicts)
    assert results[1].images.is_cuda
    assert torch.equal(results[1].images, results[2].images)  # the same forward passes, and bit-identical operations
    assert torch.equal(results[1].masks, results[2].masks)
    assert results[1].backend == "triton"
    assert results[1].execution == "CUDA graph"


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("mask", ["center", "random-80", "stripes"])
def test_verdicts_of_the_accelerated_solver_are_those_of_the_cpu(
    memorised: Memorised, on_gpu: nn.Module, images: Tensor, mask: str, known: bool
) -> None:
    """Backends sum over pixels in another order: estimates agree as far as they stand still, to 3e-5 per pixel."""
    degraded = degrade(images, mask)
    given = degradation.make_mask(mask, SHAPE) if known else None
    results = [
        mf.recover(memorised.autoencoder, degraded, given, ACCELERATED),
        mf.recover(on_gpu, degraded.cuda(), given, ACCELERATED, backend="triton"),
        mf.recover(on_gpu, degraded.cuda(), given, ACCELERATED, backend="torch"),
        reference.recover(on_gpu, degraded.cuda(), given if given is None else given.cuda(), ACCELERATED),
    ]
    for threshold in (metrics.ACCURATE_MSE, metrics.APPROXIMATE_MSE):
        verdicts = [metrics.mse(result.images.cpu(), images) < threshold for result in results]
        assert all(torch.equal(verdict, verdicts[0]) for verdict in verdicts)
    recovered = verdicts[0]
    assert recovered[:16].sum() >= 15
    for result in results[1:]:
        assert (result.status.cpu() == results[0].status)[recovered].all()
        torch.testing.assert_close(result.images.cpu()[recovered], results[0].images[recovered], rtol=0, atol=1e-4)
        recognized = (result.fixed_point_mse + result.misfit).cpu() < ACCELERATED.recognized_below
        assert torch.equal(recognized, recovered)
    assert results[1].images.is_cuda
    assert results[1].backend == "triton"
    assert results[1].execution == "CUDA graph"
    assert (results[1].accepted.cpu()[recovered] > 0).all()


@pytest.mark.parametrize("known", [False, True])
def test_a_graph_of_the_accelerated_solver_gives_what_eager_execution_gives(
    on_gpu: nn.Module, images: Tensor, known: bool
) -> None:
    """One attempt, so that as many rows go through every block either way."""
    solver = prepare_recover(on_gpu, SHAPE, dataclasses.replace(ACCELERATED, gamma=0.5), known_masks=known)
    mask = degradation.make_mask("center", SHAPE) if known else None
    samples = [Sample(i, y, mask) for i, y in enumerate(degrade(images))]
    schedule = make_schedule(solver.prox.device, 32)
    eager = by_index(InFlight(solver, 32, dataclasses.replace(schedule, make_capture=None)).stream(samples))
    in_flight = InFlight(solver, 32)
    for _ in range(2):
        got = by_index(in_flight.stream(samples))
        assert_same(got, eager)
        for index, one in eager.items():
            other = got[index]
            assert (other.evaluations, other.accepted, other.rejected, other.mask_changes) == (
                one.evaluations,
                one.accepted,
                one.rejected,
                one.mask_changes,
            )
    assert in_flight.execution == "CUDA graph"


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("architecture", ["fully connected", "U-Net"])
def test_images_that_stay_on_the_gpu_come_to_what_those_from_the_host_come_to(
    on_gpu: nn.Module, images: Tensor, architecture: str, known: bool
) -> None:
    """A U-Net's pixels are channels-last in the slots; with two γ, estimates of several attempts are compared."""
    if architecture == "U-Net":
        torch.manual_seed(0)
        on_gpu = autoencoders.UNet(SHAPE, (8, 16), "leaky_relu").eval().cuda()
    settings = dataclasses.replace(ACCELERATED, gamma=(0.5, 1.0), max_outer_iterations=12, recognized_below=1e-11)
    degraded, mask = degrade(images), degradation.make_mask("center", SHAPE) if known else None
    through_host = mf.recover(on_gpu, degraded, mask, settings)
    stayed = mf.recover(on_gpu, degraded.cuda(), mask, settings)
    for field in dataclasses.fields(stayed):
        one, other = getattr(stayed, field.name), getattr(through_host, field.name)
        if isinstance(one, Tensor):
            assert one.is_cuda
            assert not other.is_cuda
            assert torch.equal(one.cpu().nan_to_num(12345), other.nan_to_num(12345)), field.name


def test_samples_may_be_computed_on_the_gpu_as_they_are_read(on_gpu: nn.Module, images: Tensor) -> None:
    """Another thread reads them; it computes in the caller's stream, which is not the default one here."""
    degraded = degrade(images)
    solver = prepare_recover(on_gpu, SHAPE, SETTINGS)
    expected = by_index(InFlight(solver, 16).stream(Sample(i, y) for i, y in enumerate(degraded)))

    def computed() -> Iterator[Sample]:
        for i, y in enumerate(degraded.cuda()):
            torch.cuda._sleep(1_000_000)  # so that the image is there late
            yield Sample(i, y * 1.0)

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        got = by_index(InFlight(solver, 16).stream(computed()))
    assert_same(got, expected)


def test_a_score_is_the_same_however_many_are_scored_together(on_gpu: nn.Module, images: Tensor) -> None:
    solver = prepare_recover(on_gpu, SHAPE, ACCELERATED)
    with torch.inference_mode():
        slots = solver.allocate(32)
        solver.admit(slots, [solver.stage(Sample(i, y)) for i, y in enumerate(degrade(images))])
        solver.advance(slots)

        def measured(count: int) -> Tensor:
            results = solver.results(slots, torch.arange(count, device="cuda"), [])
            found = score(solver.prox, solver.ops, results, 64).fixed_point_mse
            assert found is not None
            return found  # after one block most of the scores themselves are infinite

        together = measured(32)
        for count in (1, 2, 7):
            assert torch.equal(measured(count), together[:count])


@pytest.mark.parametrize("architecture", ["fully connected", "U-Net"])
def test_a_graph_gives_what_eager_execution_gives(on_gpu: nn.Module, images: Tensor, architecture: str) -> None:
    settings = SETTINGS
    if architecture == "U-Net":
        torch.manual_seed(0)
        on_gpu = autoencoders.UNet(SHAPE, (8, 16), "leaky_relu").eval().cuda()
        settings = Settings(solver="paper", gamma=1.0, initial_mask="zeros", max_outer_iterations=6)
    solver = prepare_recover(on_gpu, SHAPE, settings)
    samples = [Sample(i, y) for i, y in enumerate(degrade(images))]
    schedule = make_schedule(solver.prox.device, 32)
    eager = by_index(InFlight(solver, 32, dataclasses.replace(schedule, make_capture=None)).stream(samples))
    in_flight = InFlight(solver, 32)
    for _ in range(2):
        assert_same(by_index(in_flight.stream(samples)), eager)
    assert in_flight.execution == "CUDA graph"


@pytest.mark.parametrize("settings", [SETTINGS, ACCELERATED])
@pytest.mark.parametrize("groups", [1, 2, 3])
@pytest.mark.parametrize("lag", [0, 1, 2])
def test_groups_and_late_flags_change_no_verdict(
    on_gpu: nn.Module, images: Tensor, groups: int, lag: int, settings: Settings
) -> None:
    solver = prepare_recover(on_gpu, SHAPE, settings)
    samples = [Sample(i, y) for i, y in enumerate(degrade(images.repeat(5, 1, 1, 1)))]
    expected = by_index(InFlight(solver, 48).stream(samples))
    schedule = dataclasses.replace(make_schedule(solver.prox.device, 48), groups=groups, lag=lag)
    got = by_index(InFlight(solver, 48, schedule).stream(samples))
    originals = images.repeat(5, 1, 1, 1)
    for index, one in expected.items():
        errors = [metrics.mse(each.image[None], originals[index][None]).item() for each in (one, got[index])]
        assert (errors[0] < metrics.APPROXIMATE_MSE) == (errors[1] < metrics.APPROXIMATE_MSE)


@pytest.mark.parametrize(
    "settings",
    [
        Settings(solver="paper", max_outer_iterations=1),
        Settings(solver="accelerated", gamma=0.5, tolerance=0.0, max_outer_iterations=8),
    ],
)
def test_the_order_of_the_images_changes_nothing_while_the_slots_are_full(
    on_gpu: nn.Module, images: Tensor, settings: Settings
) -> None:
    """All 32 slots in every block: every image makes as many outer iterations, so that all leave at once."""
    solver = prepare_recover(on_gpu, SHAPE, settings)
    samples = [Sample(i, y) for i, y in enumerate(degrade(images.repeat(4, 1, 1, 1)))]
    forwards = by_index(InFlight(solver, 32).stream(samples))
    backwards = InFlight(solver, 32)
    assert_same(by_index(backwards.stream(samples[::-1])), forwards)
    assert backwards.execution == "CUDA graph"


def test_a_block_asks_the_device_for_no_answer(on_gpu: nn.Module, images: Tensor) -> None:
    choices = [
        dataclasses.replace(SETTINGS, precision=choice) for choice in ("float32", "float32x3", "tf32", "bfloat16")
    ]
    for settings in (*choices, ACCELERATED):
        solver = prepare_recover(on_gpu, SHAPE, settings)
        slots = solver.allocate(32)
        with torch.inference_mode():
            solver.admit(slots, [solver.stage(Sample(i, y)) for i, y in enumerate(degrade(images))])
            solver.advance(slots)  # compiles the kernels
            torch.cuda.set_sync_debug_mode("error")
            try:
                solver.advance(slots)
            finally:
                torch.cuda.set_sync_debug_mode("default")


class Waiting(nn.Module):
    """Waits for the device in every call: in a way that torch notices beforehand, or only the capture."""

    def __init__(self, autoencoder: nn.Module, visibly: bool) -> None:
        super().__init__()
        self.autoencoder = autoencoder
        self.visibly = visibly

    def forward(self, x: Tensor) -> Tensor:
        if self.visibly:
            x = x + 0 * x.max().item()
        else:
            torch.cuda.synchronize()
        return self.autoencoder(x)  # type: ignore[no-any-return]


@pytest.mark.parametrize("visibly", [True, False])
@pytest.mark.filterwarnings("ignore:the autoencoder cannot be captured:RuntimeWarning")
def test_what_cannot_be_captured_runs_without_and_says_so(on_gpu: nn.Module, images: Tensor, visibly: bool) -> None:
    degraded = degrade(images).cuda()
    expected = mf.recover(on_gpu, degraded, settings=SETTINGS)
    got = mf.recover(Waiting(on_gpu, visibly).eval(), degraded, settings=SETTINGS)
    assert got.execution.startswith("eager: ")
    assert torch.equal(got.images, expected.images)
    # a capture that failed leaves nothing behind: memory can be had and given back, and others can capture
    memory = torch.rand(2**26, device="cuda")  # torch's random numbers too take part in captures
    del memory
    torch.cuda.empty_cache()
    assert mf.recover(on_gpu, degraded, settings=SETTINGS).execution == "CUDA graph"


def test_changed_weights_are_noticed(on_gpu: nn.Module, images: Tensor) -> None:
    net = copy.deepcopy(on_gpu)
    in_flight = InFlight(prepare_recover(net, SHAPE, SETTINGS), 32)
    samples = [Sample(i, y) for i, y in enumerate(degrade(images))]
    list(in_flight.stream(samples))
    with torch.no_grad():
        next(net.parameters()).mul_(1.0)
    with pytest.raises(ValueError, match="was changed since the solver was prepared"):
        list(in_flight.stream(samples))


def test_a_compiled_autoencoder_is_captured(on_gpu: nn.Module, images: Tensor) -> None:
    degraded = degrade(images).cuda()
    expected = mf.recover(on_gpu, degraded, settings=SETTINGS)
    got = mf.recover(torch.compile(on_gpu), degraded, settings=SETTINGS)
    assert got.execution == "CUDA graph"
    verdicts = [metrics.mse(one.images.cpu(), images) < metrics.APPROXIMATE_MSE for one in (got, expected)]
    assert torch.equal(*verdicts)


@pytest.mark.parametrize("settings", [SETTINGS, ACCELERATED])
@pytest.mark.parametrize("choice", ["float32x3", "tf32", "bfloat16", "progressive"])
def test_precision(on_gpu: nn.Module, images: Tensor, choice: str, settings: Settings) -> None:
    degraded = degrade(images).cuda()
    exact = mf.recover(on_gpu, degraded, settings=settings)
    got = mf.recover(on_gpu, degraded, settings=dataclasses.replace(settings, precision=choice))
    assert got.execution == "CUDA graph"
    thresholds = [metrics.APPROXIMATE_MSE] + ([metrics.ACCURATE_MSE] if choice == "progressive" else [])
    for threshold in thresholds:
        verdicts = [metrics.mse(one.images.cpu(), images) < threshold for one in (got, exact)]
        # masks that begin otherwise may end in another basin: as many as the checks of `python -m benchmarks gpu` allow
        assert (verdicts[0] != verdicts[1]).sum() <= max(1, len(images) // 50)
    assert not torch.equal(got.images, exact.images) or choice == "progressive"


class Greedy(nn.Module):
    """Takes as much memory for each row as makes `most` rows fill three quarters of what is free."""

    def __init__(self, autoencoder: nn.Module, most: int) -> None:
        super().__init__()
        self.autoencoder = autoencoder
        self.bytes_per_row = torch.cuda.mem_get_info()[0] * 3 // 4 // most

    def forward(self, x: Tensor) -> Tensor:
        torch.empty(len(x) * self.bytes_per_row, dtype=torch.uint8, device=x.device)
        return self.autoencoder(x)  # type: ignore[no-any-return]


@pytest.mark.filterwarnings("ignore:memory ran out:RuntimeWarning")
def test_when_memory_runs_out_fewer_slots_go_on(on_gpu: nn.Module, images: Tensor) -> None:
    samples = [Sample(i, y) for i, y in enumerate(degrade(images.repeat(10, 1, 1, 1)))]
    in_flight = InFlight(prepare_recover(Greedy(on_gpu, most=40).eval(), SHAPE, SETTINGS), 256)
    got = by_index(in_flight.stream(samples))
    assert in_flight.slots in (16, 32, 64)  # a graph keeps its memory, and scores take theirs beside it
    assert in_flight.execution == "CUDA graph"
    assert sorted(got) == list(range(320))
    del in_flight
    torch.cuda.empty_cache()


class LessMemoryLater(nn.Module):
    """Runs out of memory while 32 rows are captured, as where another program takes it; after that with 20 rows."""

    def __init__(self, autoencoder: nn.Module) -> None:
        super().__init__()
        self.autoencoder = autoencoder
        self.ran_out = False

    def forward(self, x: Tensor) -> Tensor:
        self.ran_out |= len(x) == 32 and torch.cuda.is_current_stream_capturing()
        if self.ran_out and len(x) > 20:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return self.autoencoder(x)  # type: ignore[no-any-return]


@pytest.mark.filterwarnings("ignore:memory ran out:RuntimeWarning")
def test_after_memory_ran_out_in_a_later_capture_blocks_are_captured_again(on_gpu: nn.Module, images: Tensor) -> None:
    """The graphs of 64 rows are there, one of 32 is about to be; then all of them go, and those of 16 rows come."""
    samples = [Sample(i, y) for i, y in enumerate(degrade(images.repeat(4, 1, 1, 1)))]
    autoencoder = LessMemoryLater(on_gpu).eval()
    in_flight = InFlight(prepare_recover(autoencoder, SHAPE, SETTINGS), 64)
    assert sorted(by_index(in_flight.stream(samples))) == list(range(128))
    assert autoencoder.ran_out
    assert in_flight.slots <= 20
    assert in_flight.execution == "CUDA graph"


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_the_second_gpu_after_the_first(on_gpu: nn.Module, images: Tensor) -> None:
    degraded = degrade(images)
    results = [
        mf.recover(copy.deepcopy(on_gpu).to(f"cuda:{index}"), degraded.to(f"cuda:{index}"), settings=SETTINGS)
        for index in (0, 1)
    ]
    assert [result.execution for result in results] == ["CUDA graph"] * 2
    assert torch.equal(results[0].images.cpu(), results[1].images.cpu())


def test_the_default_number_of_slots_fits(on_gpu: nn.Module) -> None:
    solver = prepare_recover(on_gpu, SHAPE, SETTINGS)
    assert solver.prox.bytes_per_row > 0
    assert 1 <= slots_by_default(solver) <= 4096


def test_an_audit_on_a_gpu(on_gpu: nn.Module, images: Tensor, tmp_path: Any) -> None:
    from memrecon_fast.audit.plan import Audit
    from memrecon_fast.audit.session import run_audit
    from memrecon_fast.audit.store.folder import Folder
    from memrecon_fast.audit.store.parts import Parts
    from memrecon_fast.audit.worker import Workbench
    from memrecon_fast.images.scan import scan
    from memrecon_fast.images.sources import from_array

    masks = {name: degradation.make_mask(name, SHAPE) for name in ("center", "half")}
    audit = Audit(
        splits={"members": scan(from_array(images.numpy()))},
        masks=masks,
        methods=("paper", "known-mask"),
        settings=SETTINGS,
    )
    folder = Folder(tmp_path, Parts(str(tmp_path / "records")))
    records: list[Any] = []
    skipped: list[str] = []
    bench = Workbench(audit, audit.prepare(on_gpu), folder.parts)

    def work(method: str, shards: Any, wanted: Any) -> str:
        return bench.work(method, shards, wanted, records.append, skipped.append)

    execution = run_audit(audit, folder, work)
    assert len(records) == 32 * 2 * len(audit.methods)
    assert not skipped
    assert all(folder.is_complete(cell) for cell in audit.cells())
    assert execution["paper"].startswith("triton, CUDA graph")

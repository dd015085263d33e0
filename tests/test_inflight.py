from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

import memrecon_fast as mf
from memrecon_fast import Settings, Status, autoencoders, degradation, inflight
from memrecon_fast.recovery import prepare_iterate, prepare_recover
from memrecon_fast.solvers.samples import Finished, Sample
from tests.memorised import Memorised

SHAPE = (3, 4, 4)


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
    result = mf.recover(codebook, degraded, settings=Settings(max_outer_iterations=40), slots=64)
    endless = result.status == Status.MAX_ITERATIONS
    assert endless[codebook.restless[shuffled]].all()
    assert 10 <= endless.sum() <= 20  # an image of another code may end at a restless one
    assert (result.outer_iterations[endless] == 40).all()
    needed = int(result.evaluations.sum())
    assert codebook.rows <= 1.15 * needed
    assert codebook.calls <= 1.6 * needed / 64  # nearly full, until only restless images are left
    batches = [result.outer_iterations[i : i + 64] for i in range(0, 1000, 64)]
    assert 39 * sum(len(batch) * int(batch.max()) for batch in batches) > 3 * needed  # if each waited for its slowest


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
        settings = Settings(gamma=1.0, max_outer_iterations=6, initial_mask=initial_mask)
    elif architecture == "odd fully connected":  # its Softplus has left-overs unless rows are a multiple of 16
        autoencoder = autoencoders.FullyConnected(shape, 51, 4, "softplus").eval()
        settings = Settings(gamma=0.5, max_outer_iterations=6, initial_mask=initial_mask)
    else:
        autoencoder = memorised.autoencoder
        settings = Settings(gamma=0.1, max_outer_iterations=12, initial_mask=initial_mask)
    solver = prepare_recover(autoencoder, shape, settings, backend=backend)

    def run(samples: list[Sample], slots: int) -> dict[int, Finished]:
        return {one.index: one for one in inflight.stream(solver, samples, slots)}

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


def same(a: Finished, b: Finished) -> bool:
    tensors = torch.equal(a.image, b.image) and torch.equal(a.mask, b.mask)
    return tensors and (a.outer_iterations, a.evaluations, a.status, a.residual) == (
        b.outer_iterations,
        b.evaluations,
        b.status,
        b.residual,
    )


def test_an_image_that_turns_nan_is_retired_and_touches_no_other() -> None:
    """f always answers 0.5: then s of a kept entry tends to 4y − 1.5 (γ = 0.5), and only image 3's passes 1.5."""
    degraded = torch.rand(10, *SHAPE, generator=torch.Generator().manual_seed(0)) * 0.2 + 0.5
    degraded[3, 0, 0, 0] = 0.9

    def f(x: Tensor) -> Tensor:
        return torch.where(x[:, :1, :1, :1] > 1.5, math.nan, torch.full_like(x, 0.5))

    result = mf.recover(f, degraded, slots=4)
    assert result.status[3] == Status.DIVERGED
    assert result.images[3].isnan().any()
    expected = mf.recover(lambda x: torch.full_like(x, 0.5), degraded, slots=4)
    assert result.outer_iterations[3] < expected.outer_iterations[3]
    others = torch.arange(10) != 3
    assert torch.equal(result.images[others], expected.images[others])
    assert (result.status[others] == Status.CONVERGED).all()


def test_samples_are_taken_only_as_slots_become_free() -> None:
    codebook = Codebook(40)
    taken = 0

    def samples() -> Iterator[Sample]:
        nonlocal taken
        for index, image in enumerate(codebook.codes):
            taken += 1
            yield Sample(index, image)

    solver = prepare_recover(codebook, SHAPE)
    done = 0
    for _ in inflight.stream(solver, samples(), slots=16):
        done += 1
        assert taken <= done + 16
    assert done == 40


def test_the_state_is_allocated_once() -> None:
    """f is given the same memory in every block, whichever images are in flight."""
    codebook = Codebook(24)
    addresses = []

    def f(x: Tensor) -> Tensor:
        addresses.append(x.data_ptr())
        return codebook(x)

    for solver in (prepare_iterate(f, SHAPE, max_iterations=3), prepare_recover(f, SHAPE)):
        addresses.clear()
        assert len(list(inflight.stream(solver, [Sample(i, x) for i, x in enumerate(codebook.codes)], 16))) == 24
        assert len(addresses) >= 2
        assert len(set(addresses)) == 1


def test_images_done_before_the_first_block_leave_at_once() -> None:
    """From an all-zeros mask the first outer iteration is shared: with one allowed, no image needs another pass."""
    codebook = Codebook(10)
    result = mf.recover(codebook, codebook.codes, settings=Settings(initial_mask="zeros", max_outer_iterations=1))
    shared_and_probe = 16 * 39 + 16
    assert codebook.rows == shared_and_probe
    assert result.outer_iterations.tolist() == [1] * 10
    assert result.evaluations.tolist() == [0] * 10
    assert result.status.tolist() == [Status.MAX_ITERATIONS] * 10


def test_results_are_ordinary_tensors_and_the_caller_is_left_in_its_own_mode() -> None:
    codebook = Codebook(8)
    modes = []

    def samples() -> Iterator[Sample]:
        for index, image in enumerate(codebook.codes):
            modes.append(torch.is_inference_mode_enabled())
            yield Sample(index, image)

    for one in inflight.stream(prepare_recover(codebook, SHAPE), samples(), 16):
        one.image.clamp_(0, 1)
        assert not torch.is_inference_mode_enabled()
    assert modes == [False] * 8


def test_an_autoencoder_may_answer_in_memory_that_it_uses_again() -> None:
    codebook = Codebook(12)
    buffers: dict[int, Tensor] = {}

    def f(x: Tensor) -> Tensor:
        return buffers.setdefault(len(x), torch.empty(x.shape)).copy_(0.5 * x + 0.5 * codebook(x))

    for iterations in (7, 40):  # an odd and an even number of applications
        settings = Settings(initial_mask="zeros", inner_iterations=iterations)
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
        list(inflight.stream(prepare_recover(Codebook(2), SHAPE), [sample], slots))

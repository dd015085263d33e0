from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from memrecon_fast import autoencoders
from memrecon_fast.engine import prox as prox_module
from memrecon_fast.engine.function import trial_images
from memrecon_fast.engine.inflight import InFlight
from memrecon_fast.engine.prox import Prox, make_prox, row_multiple_of, vector_entries
from memrecon_fast.engine.samples import Sample
from memrecon_fast.recovery import prepare_recover, recover
from tests.helpers.broken import resized

CPU = torch.device("cpu")


class SeenLayout(nn.Module):
    """A convolution that remembers the strides of what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 3, 3, padding=1)
        self.strides: tuple[int, ...] = ()

    def forward(self, x: Tensor) -> Tensor:
        self.strides = x.stride()
        return self.convolution(x)  # type: ignore[no-any-return]


def test_rows_and_images_are_each_others_inverse() -> None:
    images = torch.rand(4, 3, 5, 7)
    for autoencoder in (nn.Identity(), nn.Conv2d(3, 3, 1)):
        prox = make_prox(autoencoder.eval(), (3, 5, 7), CPU)
        rows = prox.to_rows(images.transpose(2, 3).contiguous().transpose(2, 3))
        assert rows.shape == (4, 105)
        assert rows.is_contiguous()
        assert torch.equal(prox.to_images(rows), images)
        assert prox.to_images(rows).is_contiguous()


def test_convolutions_are_given_channels_last_and_their_result_is_theirs() -> None:
    autoencoder = SeenLayout().eval()
    prox = make_prox(autoencoder, (3, 6, 8), CPU)
    images = torch.rand(4, 3, 6, 8)
    with torch.inference_mode():
        v = prox(prox.to_rows(images))
        assert autoencoder.strides == (3 * 6 * 8, 1, 3 * 8, 3)
        # float32 sums of 27 products in another order
        torch.testing.assert_close(prox.to_images(v), autoencoder(images), rtol=1e-5, atol=1e-6)
    assert v.is_contiguous()


@pytest.mark.parametrize(
    "autoencoder",
    [lambda x: x, lambda x: x.flip(1), lambda x: x.double(), lambda x: x[..., :1].expand_as(x), lambda x: x.view_as(x)],
)
def test_the_result_is_float32_rows_in_memory_of_its_own(autoencoder: Any) -> None:
    s = torch.rand(4, 12)
    before = s.clone()
    v = Prox(autoencoder, (3, 2, 2), CPU)(s)
    assert v.dtype == torch.float32
    assert v.is_contiguous()
    assert torch.equal(v, autoencoder(s.view(4, 3, 2, 2)).float().reshape(4, 12))
    v.fill_(7)
    assert torch.equal(s, before)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("activation", ["leaky_relu", "prelu", "softplus"])
@pytest.mark.parametrize("architecture", ["fully connected", "U-Net", "odd fully connected", "odd U-Net"])
def test_a_row_is_bit_identical_among_any_number_of_rows_that_it_is_given(
    architecture: str, activation: str, threads: int
) -> None:
    """What in-flight batching rests on, with this torch on this machine; `.ci/run` looks at it once more with the
    instructions of other processors."""
    if (architecture, activation, threads) == ("odd U-Net", "softplus", 2):
        pytest.skip("the exception that row_multiple_of names: shares of the threads that are no multiples of a vector")
    shape = (3, 10, 14) if "odd" in architecture else (3, 16, 16)
    autoencoder: nn.Module
    if "U-Net" in architecture:
        autoencoder = autoencoders.UNet(shape, (5, 7) if "odd" in architecture else (8, 16), activation).eval()
    else:
        autoencoder = autoencoders.FullyConnected(shape, 51 if "odd" in architecture else 100, 4, activation).eval()
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        prox = make_prox(autoencoder, shape, CPU)
        assert prox.row_multiple == expected_multiple(architecture)
        rows = torch.rand(256, prox.pixels, generator=torch.Generator().manual_seed(0))
        with torch.inference_mode():
            expected = prox(rows)
            for count in (prox.block_sizes(slots)[-1] for slots in (1, 5, 12, 17, 33, 64, 100, 140, 239)):
                assert torch.equal(prox(rows[:count].clone()), expected[:count])
                assert torch.equal(prox(rows[-count:].clone()), expected[-count:])
    finally:
        torch.set_num_threads(before)


def expected_multiple(architecture: str) -> int:
    """A layer of 100 has a multiple of 4 entries per row, but not of 8."""
    if "odd" in architecture:
        return vector_entries()
    return vector_entries() // 4 if "connected" in architecture else 4


@pytest.mark.parametrize(
    ("sizes", "vector", "multiple"),
    [
        ([16 * 100], 16, 4),
        ([16 * 100], 32, 8),
        ([16 * 64, 16 * 102], 16, 8),
        ([16 * 64, 16 * 102], 32, 16),
        ([16 * 64, 16 * 51], 16, 16),
        ([16 * 64, 16 * 51], 32, 32),
        ([16 * 64, 7], 32, 32),  # a tensor that has nothing to do with the rows
        ([], 16, 16),
    ],
)
def test_all_tensors_are_whole_vectors(sizes: list[int], vector: int, multiple: int) -> None:
    assert row_multiple_of(sizes, 16, vector) == multiple


def test_images_of_any_rank() -> None:
    assert Prox(nn.Linear(5, 5).eval(), (5,), CPU)(torch.rand(4, 5)).shape == (4, 5)
    assert Prox(lambda x: x, (2, 3, 4, 5), CPU)(torch.rand(4, 120)).shape == (4, 120)


SHAPE = (3, 4, 4)


@pytest.mark.parametrize(
    ("autoencoder", "kind", "message"),
    [
        (3, TypeError, "autoencoder must be callable, not int"),
        (nn.Sequential(nn.Identity(), nn.Dropout()), ValueError, r"in training mode; call autoencoder.eval\(\)"),
        (nn.Conv2d(3, 3, 1).double().eval(), TypeError, "its parameter weight is torch.float64"),
        (nn.Conv2d(1, 1, 1).eval(), ValueError, r"fails on a batch of shape \(16, 3, 4, 4\): RuntimeError"),
        (lambda x: x[:, :1], ValueError, r"must return the shape it is given, \(16, 3, 4, 4\), not \(16, 1, 4, 4\)"),
        (lambda x: (x, x), TypeError, "must return a floating-point tensor, not tuple"),
        (lambda x: x > 0, TypeError, "must return a floating-point tensor, not torch.bool"),
        (nn.ReLU(inplace=True).eval(), ValueError, "changes its input in place"),
    ],
)
def test_what_is_wrong_with_an_autoencoder_is_said(autoencoder: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        make_prox(autoencoder, SHAPE, CPU)


def test_a_good_autoencoder_passes() -> None:
    make_prox(nn.Conv2d(3, 3, 1).eval(), SHAPE, CPU)
    make_prox(lambda x: x * torch.nan, SHAPE, CPU)


class Flattening(nn.Module):
    """The commonest of convolutional encoders: .view() takes contiguous images only."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 5, 3, padding=1)
        self.linear = nn.Linear(5 * 16, 3 * 16)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.convolution(x).view(len(x), -1)).view(x.shape)  # type: ignore[no-any-return]


class ChangingChannelsLast(nn.Module):
    """Changes its input where the input is channels-last: there the reshape is a view, else a copy."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        x.permute(0, 2, 3, 1).reshape(len(x), -1).mul_(0.5)
        return self.convolution(x)  # type: ignore[no-any-return]


@pytest.mark.parametrize("kind", [Flattening, ChangingChannelsLast])
def test_models_that_cannot_take_channels_last_are_given_contiguous_images(kind: type[nn.Module]) -> None:
    autoencoder = kind().eval()
    prox = make_prox(autoencoder, SHAPE, CPU)
    s = torch.rand(16, 48)
    before = s.clone()
    with torch.inference_mode():
        assert torch.equal(prox(s), autoencoder(before.view(16, *SHAPE)).reshape(16, 48))
    assert torch.equal(s, before)


def test_an_exported_program_has_no_training_mode() -> None:
    batch = torch.export.Dim("batch", min=1)
    exported = torch.export.export(
        nn.Linear(4, 4).eval(), (torch.rand(16, 4),), dynamic_shapes={"input": {0: batch}}
    ).module()
    assert make_prox(exported, (4,), CPU)(torch.rand(16, 4)).shape == (16, 4)


def test_the_default_dtype_does_not_matter() -> None:
    autoencoder = nn.Linear(4, 4).eval()
    torch.set_default_dtype(torch.float64)
    try:
        assert make_prox(autoencoder, (4,), CPU)(torch.rand(16, 4, dtype=torch.float32)).dtype == torch.float32
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("backend", ["torch", "auto"])
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda images, answer: resized(answer, 0), "the autoencoder's output must be wholly in memory, but its sto"),
        (lambda images, answer: resized(answer, 5), "the autoencoder's output must be wholly in memory, but its sto"),
        (lambda images, answer: [resized(images, 0), answer][1], "the autoencoder's input must be wholly in memory"),
        (lambda images, answer: [resized(images, 2**20), answer][1], "s must stay where it was when the slots were m"),
    ],
)
def test_an_autoencoder_that_frees_memory_is_named(spoil: Any, message: str, backend: str) -> None:
    calls = 0

    def autoencoder(images: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        answer = images * 0.5
        return spoil(images, answer) if calls == 9 else answer

    solver = prepare_recover(autoencoder, (1, 4, 4), backend=backend)
    with pytest.raises(ValueError, match=f"^{message}"):
        list(InFlight(solver, 4).stream(Sample(i, torch.rand(1, 4, 4)) for i in range(4)))


def test_an_autoencoder_that_answers_in_a_lazy_view_or_a_subclass_is_taken() -> None:
    degraded = torch.rand(3, 1, 4, 4)
    usual = recover(lambda x: x * 0.5, degraded).images
    for autoencoder in (lambda x: torch._neg_view(x * -0.5), lambda x: nn.Parameter(x * 0.5, requires_grad=False)):
        assert torch.equal(recover(autoencoder, degraded).images, usual)


def test_an_autoencoder_that_answers_in_the_same_memory_each_time_is_taken() -> None:
    degraded = torch.rand(3, 1, 4, 4)
    memory: dict[int, Tensor] = {}

    def autoencoder(images: Tensor) -> Tensor:
        answer = memory.setdefault(len(images), torch.empty(images.shape))
        return torch.mul(images, 0.5, out=answer)

    assert torch.equal(recover(autoencoder, degraded).images, recover(lambda x: x * 0.5, degraded).images)


def layouts() -> tuple[Prox, Prox, Tensor]:
    """Channels-last and contiguous, and images that both are tried on."""
    net = autoencoders.UNet((3, 8, 8), (4, 8)).eval()
    proxes = [Prox(net, (3, 8, 8), torch.device("cpu"), channels_last) for channels_last in (True, False)]
    return proxes[0], proxes[1], trial_images(16, (3, 8, 8))


@pytest.mark.parametrize(
    ("milliseconds", "contiguous"), [((1.0, 0.8), True), ((1.0, 0.95), False), ((1.0, 2.0), False)]
)
def test_on_a_gpu_the_faster_layout_is_taken_where_it_gains_a_tenth(
    milliseconds: tuple[float, float], contiguous: bool
) -> None:
    last, first, images = layouts()
    timed: list[tuple[Prox, Tensor]] = []

    def measure(prox: Prox, rows: Tensor) -> float:
        timed.append((prox, rows))
        return milliseconds[len(timed) - 1]

    chosen = prox_module._faster(last, first, images, "float32", measure)
    assert [prox for prox, _ in timed] == [last, first]  # once each
    assert chosen is (first if contiguous else last)
    assert chosen.bytes_per_row > 0 or chosen is last  # the other one was tried, too
    assert all(len(rows) == prox_module.TIMED_ROWS for _, rows in timed)
    assert torch.equal(last.to_images(timed[0][1]), first.to_images(timed[1][1]))  # the same images


@pytest.mark.parametrize("error", [ValueError("only channels-last"), torch.OutOfMemoryError("CUDA out of memory")])
def test_where_the_other_layout_fails_there_is_no_choice(error: Exception) -> None:
    last, first, images = layouts()

    def measure(prox: Prox, rows: Tensor) -> float:
        raise error

    assert prox_module._faster(last, first, images, "float32", measure) is last

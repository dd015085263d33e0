"""Whether the autoencoder is a function of each image alone, and what is said where it is not."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import memrecon_fast as mf
from memrecon_fast import Settings
from memrecon_fast.common.errors import AutoencoderChangedError
from memrecon_fast.engine.function import distance, private_randomness, subset, trial_images
from memrecon_fast.engine.inflight import InFlight
from memrecon_fast.engine.prox import make_prox
from memrecon_fast.engine.samples import Finished, Sample
from memrecon_fast.recovery import prepare_iterate
from tests.helpers.memorised import Memorised

CPU = torch.device("cpu")
SHAPE = (3, 8, 8)
NOISE = 1e-3
SAME_IMAGES = "answers differently to the same images"
PLACE = "depends on its place in the batch, or its neighbours"
NUMBER = "depends on how many others, or which, are in the batch"


def seeded(x: Tensor) -> Tensor:
    """Noise that is the same in every call, but for another one for every place."""
    with torch.random.fork_rng([]):
        torch.manual_seed(1)
        return NOISE * torch.randn(x.shape)


def restored(x: Tensor) -> Tensor:
    """Noise of a generator that is put back: the same until somebody else uses it."""
    with torch.random.fork_rng([]):
        return NOISE * torch.randn(x.shape[1:]).expand_as(x)


def noise_where(x: Tensor, chosen: Tensor) -> Tensor:
    return NOISE * torch.randn(x.shape) * chosen.view(-1, 1, 1, 1)


CHANGES: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "noise": (lambda x: x + NOISE * torch.randn(x.shape), SAME_IMAGES),
    "dropout": (lambda x: functional.dropout(x, 0.1), SAME_IMAGES),
    "noise of NumPy": (lambda x: x + NOISE * np.random.randn(), SAME_IMAGES),  # noqa: NPY002
    "noise of Python": (lambda x: x + NOISE * random.random(), SAME_IMAGES),
    "noise on photographs alone": (lambda x: x + noise_where(x, x.flatten(1).std(dim=1) < 0.2), SAME_IMAGES),
    "noise in [0, 1] alone": (lambda x: x + noise_where(x, x.flatten(1).aminmax(dim=1).min >= 0), SAME_IMAGES),
    "noise on dark images alone": (lambda x: x + noise_where(x, x.flatten(1).mean(dim=1) < 0.1), SAME_IMAGES),
    "seeded noise": (lambda x: x + seeded(x), PLACE),
    "noise of a generator that is put back": (lambda x: x + restored(x), SAME_IMAGES),
    "place": (lambda x: x + NOISE * torch.arange(len(x)).view(-1, 1, 1, 1), PLACE),
    "neighbour": (lambda x: x + NOISE * x.roll(1, 0), PLACE),
    "sorted": (lambda x: x.sort(dim=0).values, PLACE),
    "number": (lambda x: x + NOISE / len(x), NUMBER),
    "weak mean": (lambda x: x + NOISE * x.mean(dim=0), NUMBER),
    "largest": (lambda x: x / x.amax(), NUMBER),
    "largest within [0, 1]": (lambda x: x.clamp(0, 1) / x.clamp(0, 1).amax(), NUMBER),
    "batch statistics": (lambda x: functional.batch_norm(x, None, None, training=True), NUMBER),
    "attention": (lambda x: x + 0.01 * torch.einsum("ij,j...->i...", affinity(x), x), NUMBER),
    "quantised by the range of the batch": (lambda x: (x / x.std() * 127).round() * x.std() / 127, NUMBER),
}


def affinity(x: Tensor) -> Tensor:
    return (x.flatten(1) @ x.flatten(1).T).softmax(dim=1)


@pytest.mark.parametrize("name", CHANGES)
def test_what_is_no_function_of_each_image_is_refused_and_named(memorised: Memorised, name: str) -> None:
    change, message = CHANGES[name]
    with pytest.raises(ValueError, match=message):
        make_prox(lambda x: memorised.autoencoder(change(x)), SHAPE, CPU)


def test_batchnorm_without_running_statistics() -> None:
    with pytest.raises(ValueError, match="track_running_stats=False"):
        make_prox(nn.Sequential(nn.BatchNorm2d(3, track_running_stats=False), nn.Conv2d(3, 3, 1)).eval(), SHAPE, CPU)
    make_prox(nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1)).eval(), SHAPE, CPU)


@pytest.mark.parametrize(
    ("layer", "message"), [(nn.Dropout(0.2), SAME_IMAGES), (nn.BatchNorm1d(192, momentum=1e-6), NUMBER)]
)
def test_what_was_exported_in_training_mode(layer: nn.Module, message: str) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 192), layer, nn.Unflatten(1, SHAPE)).train()
    batch = {0: torch.export.Dim("batch", min=2)}
    exported = torch.export.export(model, (torch.rand(8, *SHAPE),), dynamic_shapes=(batch,)).module()
    with pytest.raises(ValueError, match=message):
        make_prox(exported, SHAPE, CPU)


class Drifting(nn.Module):
    """Writes itself in each forward pass."""

    def __init__(self, change: Callable[[Any], None]) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.register_buffer("calls", torch.zeros(()))
        self.change = change

    def forward(self, x: Tensor) -> Tensor:
        self.change(self)
        return self.linear(x) + 1e-3 * self.shift()  # type: ignore[no-any-return]

    def shift(self) -> Tensor:
        return torch.as_tensor(self.calls) * getattr(self, "matters", 0)


def count(self: Any) -> None:
    self.calls.add_(1)


def count_anew(self: Any) -> None:
    self.calls = self.calls + 1


def count_so_that_it_matters(self: Any) -> None:
    self.matters = 1
    self.calls.add_(1)


def write_weights(self: Any) -> None:
    with torch.no_grad():
        self.linear.weight.mul_(1)


def write_data(self: Any) -> None:
    self.linear.weight.data.mul_(0.99)


@pytest.mark.parametrize("change", [count, count_anew])
def test_a_counter_that_changes_no_answer_is_harmless(change: Callable[[Any], None]) -> None:
    solver = prepare_iterate(Drifting(change).eval(), (4,), max_iterations=3)
    assert len(list(InFlight(solver, 4).stream(Sample(i, torch.rand(4)) for i in range(6)))) == 6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (write_weights, "a forward pass changes the autoencoder's linear.weight"),
        (write_data, SAME_IMAGES),
        (count_so_that_it_matters, SAME_IMAGES),
    ],
)
def test_what_a_forward_pass_changes(change: Callable[[Any], None], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_prox(Drifting(change).eval(), (4,), CPU)


def in_bfloat16(x: Tensor) -> Tensor:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return functional.linear(x.flatten(1), torch.eye(192) + 0.01 * torch.ones(192, 192)).view_as(x)


def expansive(x: Tensor) -> Tensor:
    """Amplifies what rounding leaves, a thousandfold."""
    return torch.sin(1000 * functional.linear(x.flatten(1), torch.full((192, 192), 0.1))).view_as(x)


@pytest.mark.parametrize(
    "function",
    [
        in_bfloat16,
        expansive,
        torch.log,
        torch.reciprocal,
        lambda x: x * torch.nan,
        lambda x: torch.exp(1e3 * x),
        lambda x: (x * 255).round() / 255,
        lambda x: functional.dropout(x, 0.5, training=False),
        lambda x: x.sort(dim=-1).values,
    ],
)
def test_functions_are_taken_whatever_they_round_and_where_they_have_no_value(function: Callable[..., Any]) -> None:
    make_prox(function, SHAPE, CPU)


@pytest.mark.parametrize("number_format", ["float32", "bfloat16"])
@pytest.mark.parametrize("activation", ["leaky_relu", "prelu", "softplus"])
def test_usual_autoencoders_are_functions(number_format: str, activation: str) -> None:
    for autoencoder in (
        mf.autoencoders.FullyConnected(SHAPE, 51, 4, activation),
        mf.autoencoders.UNet(SHAPE, (5, 7), activation),
    ):
        make_prox(autoencoder.eval(), SHAPE, CPU, number_format)


def test_the_callers_random_numbers_stay_the_same() -> None:
    torch.manual_seed(3)
    random.seed(3)
    np.random.seed(3)  # noqa: NPY002
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()  # type: ignore[index] # noqa: NPY002
    with pytest.raises(ValueError, match=SAME_IMAGES):
        make_prox(lambda x: x + torch.rand(()) + random.random() + np.random.rand(), SHAPE, CPU)  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert np.array_equal(np.random.get_state()[1], before[2])  # type: ignore[index] # noqa: NPY002


def test_randomness_is_private_after_an_error() -> None:
    before = torch.get_rng_state()
    with pytest.raises(ZeroDivisionError), private_randomness(CPU):
        torch.rand(1 // 0)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_distance_of_answers() -> None:
    a = torch.tensor([[0.0, 0.0], [30.0, 40.0]])
    assert distance(a, a) == 0
    assert distance(a, a + torch.tensor([[0.3, 0.4], [0.0, 0.0]])) == pytest.approx(0.125**0.5)
    assert distance(a, a + torch.tensor([[0.0, 0.0], [0.3, 0.4]])) == pytest.approx(0.125**0.5 / 1250**0.5, rel=1e-4)
    nan = torch.tensor([[torch.nan, 1.0]])
    assert distance(nan, nan) == 0
    assert distance(nan, torch.ones(1, 2)) == torch.inf
    assert distance(torch.ones(1, 2), nan) == torch.inf
    assert distance(nan.nan_to_num(torch.inf), nan.nan_to_num(-torch.inf)) == torch.inf


def test_the_images_of_the_trial_are_of_all_kinds_and_a_few_of_them_are_smooth() -> None:
    images = trial_images(16, SHAPE)
    assert torch.equal(images, trial_images(16, SHAPE))
    assert images.amin() < -0.9
    assert images.amax() > 1.9
    assert any(torch.equal(image, torch.zeros(SHAPE)) for image in images)
    few = images[subset(16, range(1, 100))]
    assert len(few) == 4
    assert 0.2 < few.amin() < few.amax() < 0.75
    assert subset(16, range(1, 4)) == list(range(16))
    assert len(subset(16, range(8, 100))) == 8
    assert trial_images(1, (5,)).shape == (1, 5)


class Later(nn.Module):
    """The autoencoder, with noise in the calls that `when` says, by their number."""

    def __init__(self, autoencoder: nn.Module, when: Callable[[int], bool]) -> None:
        super().__init__()
        self.autoencoder, self.when, self.calls = autoencoder, when, 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        noise = NOISE * torch.randn(x.shape) if self.when(self.calls) else 0
        return self.autoencoder(x) + noise  # type: ignore[no-any-return]


RANDOM_LATER = [lambda call: call % 10 == 0, lambda call: call > 40]


@pytest.mark.parametrize("when", RANDOM_LATER)
def test_what_is_random_later_is_noticed_at_the_end(memorised: Memorised, when: Callable[[int], bool]) -> None:
    y = memorised.members[:5]
    settings = Settings(solver="paper", gamma=0.5, max_outer_iterations=3)
    message = "is random at times"
    with pytest.warns(RuntimeWarning, match=message):
        recovery = mf.recover(Later(memorised.autoencoder, when).eval(), y, settings=settings)
    assert "the result is in doubt" in recovery.doubt
    assert recovery.images.shape == y.shape
    with pytest.warns(RuntimeWarning, match=message):
        assert mf.iterate(Later(memorised.autoencoder, when).eval(), y, max_iterations=60, tolerance=0).doubt
    assert not mf.recover(memorised.autoencoder, y, settings=settings).doubt
    solver = prepare_iterate(Later(memorised.autoencoder, when).eval(), SHAPE, max_iterations=60, tolerance=0)
    done: list[Finished] = []
    with pytest.raises(AutoencoderChangedError, match=message):
        done.extend(InFlight(solver, 4).stream(Sample(i, image) for i, image in enumerate(y)))
    assert len(done) == 5


def test_a_stream_yields_all_images_before_it_says_that_they_are_in_doubt(memorised: Memorised) -> None:
    late = Later(memorised.autoencoder, lambda call: call > 40).eval()
    stream = InFlight(prepare_iterate(late, SHAPE, max_iterations=60, tolerance=0), 4).stream(
        Sample(i, image) for i, image in enumerate(memorised.members[:5])
    )
    done = [next(stream) for _ in range(5)]
    assert sorted(one.index for one in done) == [0, 1, 2, 3, 4]
    with pytest.raises(AutoencoderChangedError):
        next(stream)


@pytest.mark.parametrize("attribute", ["weight", "data"])
def test_weights_that_are_changed_meanwhile_are_noticed_at_the_end(memorised: Memorised, attribute: str) -> None:
    linear = nn.Linear(4, 4).eval()
    stream = InFlight(prepare_iterate(linear, (4,), max_iterations=3), 4).stream(
        Sample(i, torch.rand(4)) for i in range(6)
    )
    next(stream)
    with torch.no_grad():
        (linear.weight if attribute == "weight" else linear.weight.data).mul_(0.5)
    message = "autoencoder's weight was changed" if attribute == "weight" else "does not answer as it did"
    with pytest.raises(AutoencoderChangedError, match=message):
        list(stream)


def test_an_autoencoder_that_fails_at_the_end_costs_no_result(memorised: Memorised) -> None:
    late = Later(memorised.autoencoder, lambda call: False).eval()
    solver = prepare_iterate(late, SHAPE, max_iterations=2)
    stream = InFlight(solver, 4).stream([Sample(0, memorised.members[0])])
    next(stream)
    late.when = lambda call: 1 // 0 == 0
    with pytest.raises(AutoencoderChangedError, match="fails on images that it has answered to before: ZeroDivision"):
        next(stream)


def test_what_is_kept_by_the_address_of_the_images_is_noticed(memorised: Memorised) -> None:
    kept: dict[int, Tensor] = {}

    def remembering(x: Tensor) -> Tensor:
        if x.data_ptr() not in kept:
            kept[x.data_ptr()] = memorised.autoencoder(x)
        return kept[x.data_ptr()]

    with pytest.raises(ValueError, match=PLACE):
        make_prox(remembering, SHAPE, CPU)


def test_what_is_used_again_where_the_images_hardly_changed_is_noticed(memorised: Memorised) -> None:
    last: list[Tensor] = []

    def cached(x: Tensor) -> Tensor:
        if not last or last[0].shape != x.shape or (last[0] - x).abs().mean() > 0.02:
            last[:] = [x.clone(), memorised.autoencoder(x)]
        return last[1].clone()

    with pytest.raises(ValueError, match="depends on what it was applied to before"):
        make_prox(cached, SHAPE, CPU)

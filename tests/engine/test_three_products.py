"""Precision "float32x3" on CPUs, where the products are emulated."""

from __future__ import annotations

import copy
import re
import threading
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

import memrecon_fast as mf
from memrecon_fast import Settings, autoencoders, degradation, metrics
from memrecon_fast.engine import precision, three_products
from memrecon_fast.engine.inflight import InFlight
from memrecon_fast.engine.precision import in_format
from memrecon_fast.engine.samples import Sample
from memrecon_fast.recovery import prepare_recover
from tests.helpers.memorised import Memorised
from tests.helpers.tied import Tied

CPU = torch.device("cpu")
SHAPE = (3, 8, 8)
X3 = Settings(precision="float32x3", gamma=0.5, max_outer_iterations=2)
FAR_BELOW_TF32 = 2e-6
"""The error of a pass of some layers, relative to the answer; that of TF32 is 3e-4."""


def sequence(*layers: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(*layers).eval()


def convolutions() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 5, (3, 2), stride=(2, 1), padding=(2, 0), dilation=(1, 2)),
        nn.ReLU(),
        nn.Conv2d(5, 4, 3, padding="same", padding_mode="reflect"),
        nn.PReLU(4),
        nn.LeakyReLU(inplace=True),
        nn.Conv2d(4, 4, 1, bias=False),
        nn.Tanh(),
        nn.Flatten(),
        nn.Linear(120, 10),
        nn.PReLU(),
        nn.ReLU(),
        nn.Linear(10, 192, bias=False),
        nn.Unflatten(1, SHAPE),
    ).eval()


NETS: dict[str, Callable[[], nn.Module]] = {
    "leaky_relu": lambda: autoencoders.FullyConnected(SHAPE, 64, 5, "leaky_relu").eval(),
    "prelu": lambda: autoencoders.FullyConnected(SHAPE, 64, 5, "prelu").eval(),
    "unet": lambda: autoencoders.UNet(SHAPE, (8, 16), "prelu", skips="all").eval(),
    "convolutions": convolutions,
    "single": lambda: nn.Conv2d(3, 3, 3, padding=1).eval(),
}


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("net", NETS)
def test_an_answer_is_that_of_float32_to_rounding(net: str, layout: torch.memory_format) -> None:
    autoencoder = NETS[net]()
    before = {name: tensor.clone() for name, tensor in autoencoder.state_dict().items()}
    images = torch.rand(16, *SHAPE).contiguous(memory_format=layout)
    replaced = in_format(autoencoder, "float32x3", CPU)[0]
    with torch.inference_mode():
        found, usual = replaced(images), autoencoder(images)
        exact = copy.deepcopy(autoencoder).double()(images.double())
        none, nothing = replaced(images[:0]), autoencoder(images[:0])
    error = float((found.double() - exact).norm() / exact.norm())
    print(f"{net}: {error:.1e}; float32: {float((usual.double() - exact).norm() / exact.norm()):.1e}")
    assert error < FAR_BELOW_TF32
    assert found.stride() == usual.stride()
    assert none.shape == nothing.shape
    assert not torch.equal(found, usual)
    for name, tensor in autoencoder.state_dict().items():
        assert torch.equal(tensor, before[name])
    assert not any("forward" in vars(module) for module in autoencoder.modules())


def test_layers_by_themselves_slices_and_loops_answer_as_the_whole_sequence_does() -> None:
    class Taken(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(nn.Linear(8, 9), nn.ReLU(), nn.Linear(9, 9), nn.LeakyReLU(), nn.Linear(9, 8))
            self.way = 0

        def forward(self, x: Tensor) -> Tensor:
            if self.way == 0:
                return self.layers(x)  # type: ignore[no-any-return]
            if self.way == 1:
                return self.layers[3:](self.layers[:3](x))  # type: ignore[no-any-return]
            for layer in self.layers:
                x = layer(x)
            return x

    torch.manual_seed(0)
    taken, x = Taken().eval(), torch.rand(16, 8)
    replaced = three_products.replace(taken, CPU)
    with torch.inference_mode():
        answers = []
        for way in range(3):
            replaced.way = way  # type: ignore[assignment]
            answers.append(replaced(x))
    assert torch.equal(answers[0], answers[1])
    assert torch.equal(answers[0], answers[2])


def test_patches_of_some_images_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    replaced, images = three_products.replace(convolutions(), CPU), torch.rand(18, *SHAPE)
    with torch.inference_mode():
        whole = replaced(images)[:16]
        monkeypatch.setattr(three_products, "MAX_PATCH_BYTES", 1)
        assert torch.equal(replaced(images)[:16], whole)


def test_bits_do_not_depend_on_the_batch(memorised: Memorised) -> None:
    replaced = three_products.replace(memorised.autoencoder, CPU)
    with torch.inference_mode():
        answers = replaced(memorised.members)
        assert torch.equal(replaced(memorised.members.flip(0)[:8]), answers.flip(0)[:8])


@pytest.mark.parametrize("solver", ["paper", "accelerated"])
@pytest.mark.parametrize("name", ["center", "random-80", "corner"])
def test_verdicts_and_evaluations_are_those_of_float32(memorised: Memorised, name: str, solver: str) -> None:
    images = torch.cat([memorised.members, memorised.controls[:8]])
    degraded = degradation.erase(images, degradation.make_mask(name, SHAPE))
    exact, got = (
        mf.recover(memorised.autoencoder, degraded, settings=Settings(solver=solver, gamma=0.5, precision=one))
        for one in ("float32", "float32x3")
    )
    verdicts = [metrics.mse(one.images, images) < metrics.APPROXIMATE_MSE for one in (exact, got)]
    assert torch.equal(*verdicts)
    assert verdicts[0][:16].sum() >= 5
    assert not torch.equal(got.images, exact.images)
    # an image between two basins may take longer; of TF32, evaluations rose by 9 to 55 %
    assert int(got.evaluations.sum()) == pytest.approx(int(exact.evaluations.sum()), rel=0.05)


def test_changed_weights_are_noticed(memorised: Memorised) -> None:
    net = copy.deepcopy(memorised.autoencoder)
    in_flight = InFlight(prepare_recover(net, SHAPE, X3), 4)
    samples = [Sample(i, y) for i, y in enumerate(memorised.members[:4])]
    list(in_flight.stream(samples))
    with torch.no_grad():
        next(net.parameters()).mul_(1.0)
    with pytest.raises(ValueError, match="was changed since the solver was prepared"):
        list(in_flight.stream(samples))


class Attending(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention, self.last = nn.MultiheadAttention(8, 2, batch_first=True), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        rows = x[:, None]
        return self.last(self.attention(rows, rows, rows, need_weights=False)[0][:, 0])  # type: ignore[no-any-return]


class OfItsOwn(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + 1


def hooked() -> nn.Module:
    layer = nn.Linear(8, 8)
    layer.register_forward_hook(lambda _module, _inputs, output: 2 * output)
    return layer


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (Tied, r"calls of (matmul|__matmul__) stay in float32"),
        (Attending, r"attention \(MultiheadAttention\).* stay in float32"),
        (lambda: nn.Sequential(OfItsOwn(8, 8), nn.Linear(8, 8)), r"0 \(OfItsOwn with a forward of its own\)"),
        (lambda: nn.Sequential(nn.Linear(8, 8), nn.ReLU(), hooked()), r"2 \(Linear with hooks\) and calls of linear"),
        (lambda: nn.Sequential(nn.utils.spectral_norm(nn.Linear(8, 8)), nn.Linear(8, 8)), r"0 \(Linear with hooks\)"),
        (
            lambda: nn.Sequential(
                nn.Linear(8, 8),
                nn.Unflatten(1, (2, 2, 2)),
                nn.Conv2d(2, 2, 1, groups=2),
                nn.ConvTranspose2d(2, 2, 1),
                nn.Flatten(),
            ),
            r"2 \(Conv2d in 2 groups\), 3 \(ConvTranspose2d\) and calls of conv2d, conv_transpose2d stay in float32",
        ),
    ],
)
def test_what_is_not_replaced_is_named(make: Any, said: str) -> None:
    torch.manual_seed(0)
    autoencoder = make().eval()
    images = torch.rand(4, 8) * torch.tensor([1.0, 0.0]).repeat(4)
    with pytest.warns(RuntimeWarning, match=f"precision 'float32x3' is of linear layers.*{said}"):
        found = mf.recover(autoencoder, images, settings=X3)
    expected = mf.recover(autoencoder, images, settings=Settings(gamma=0.5, max_outer_iterations=2))
    torch.testing.assert_close(found.images, expected.images, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("of", [parametrizations.weight_norm, parametrizations.spectral_norm])
def test_weights_that_are_parametrized(of: Any) -> None:
    autoencoder = sequence(of(nn.Linear(8, 8)), nn.ReLU(), of(nn.Linear(8, 8)))
    images = torch.rand(16, 8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        solver = prepare_recover(autoencoder, (8,), X3)
    with torch.inference_mode():
        torch.testing.assert_close(solver.prox.apply(images), autoencoder(images), rtol=1e-5, atol=1e-6)
    in_flight = InFlight(solver, 4)
    with torch.no_grad():
        next(autoencoder.parameters()).mul_(1.0)
    with pytest.raises(ValueError, match="was changed since the solver was prepared"):
        list(in_flight.stream([Sample(0, images[0])]))


def test_what_the_model_does_in_another_format_stays_so() -> None:
    class Half(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            with torch.autocast("cpu", dtype=torch.bfloat16):
                return self.linear(x)  # type: ignore[no-any-return]

    half, x = Half().eval(), torch.rand(16, 8)
    with torch.inference_mode():
        assert torch.equal(three_products.replace(half, CPU)(x), half(x))


def test_what_was_compiled_is_copied_as_it_was() -> None:
    autoencoder = sequence(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8))
    compiled = nn.Module.__new__(nn.Module)
    nn.Module.__init__(compiled)
    compiled._orig_mod = autoencoder  # as torch.compile does, which takes long
    with torch.inference_mode():
        found = three_products.replace(compiled, CPU)(torch.rand(4, 8))
    assert found.shape == (4, 8)


class Uncopyable(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)
        self.lock = threading.Lock()

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x)  # type: ignore[no-any-return]


class Differentiating(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = x.requires_grad_()
        return torch.autograd.grad(self.linear(x).square().sum(), x)[0]


@pytest.mark.parametrize(
    ("autoencoder", "message"),
    [
        (lambda x: x, "the autoencoder must be an nn.Module, not function"),
        (nn.Sequential(nn.ReLU()), "this one has none that could be"),
        (nn.Sequential(nn.Conv1d(8, 8, 1)), r"this one has none that could be; it has 0 \(Conv1d\)"),
        (Uncopyable(), "in a copy of it, and it cannot be copied: TypeError: cannot pickle '_thread.lock' object"),
        (Differentiating(), "precision 'float32x3' has no gradients, and the autoencoder asks for them"),
    ],
)
def test_what_is_refused(autoencoder: Any, message: str) -> None:
    if isinstance(autoencoder, nn.Module):
        autoencoder.eval()
    with pytest.raises(ValueError, match=message) as refused:
        mf.recover(autoencoder, torch.rand(2, 8), settings=X3)
    assert "\n" not in str(refused.value)


def test_devices_without_such_products(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = torch.device("cuda", 0)
    assert re.search("made for NVIDIA GPUs", three_products.why_not_on(torch.device("meta")) or "")
    monkeypatch.setattr(torch.version, "hip", "6.4")
    assert re.search("made for NVIDIA GPUs", three_products.why_not_on(cuda) or "")
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (6, 1))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "an old one")
    assert three_products.why_not_on(cuda) == "it needs tensor cores, compute capability 7.0; an old one has 6.1"
    with pytest.raises(ValueError, match="precision 'float32x3' is not available: it needs tensor cores"):
        three_products.replace(nn.Linear(4, 4), cuda)


def test_sums_are_of_float32_for_the_call_alone() -> None:
    matmul: Any = torch.backends.cuda.matmul
    names = ("allow_fp16_reduced_precision_reduction", "allow_fp16_accumulation")
    if not hasattr(matmul, names[1]):
        pytest.skip("this torch sums in float32, or rounds between")
    before = [getattr(matmul, name) for name in names]
    try:
        matmul.allow_fp16_accumulation = True
        with precision._full_sums(True):
            assert [getattr(matmul, name) for name in names] == [False, False]
        assert [getattr(matmul, name) for name in names] == [before[0], True]
        with precision._full_sums(False):
            assert [getattr(matmul, name) for name in names] == [before[0], True]
    finally:
        matmul.allow_fp16_accumulation = before[1]

"""Linear layers with packed weights, against torch's own."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

import memrecon_fast as mf
from memrecon_fast.common.errors import AutoencoderChangedError
from memrecon_fast.engine import packed
from memrecon_fast.engine.packed import MIN_WEIGHTS, Packed, weights_of
from memrecon_fast.engine.precision import with_gradients
from memrecon_fast.engine.prox import make_prox
from memrecon_fast.recovery import prepare_iterate

CPU = torch.device("cpu")
SHAPE = (3, 16, 16)
ROUNDING = 1e-5
"""Between sums of a thousand products of float32, of numbers up to 1, in two orders: up to 2.2e-6 was seen, with torch
2.4; other weights would make 1e-2 and more."""
LARGE = [(1024, 1024), (768, 1024), (12288, 100), (1000, 1030), (513, 1031)]

pytestmark = pytest.mark.skipif(not packed.is_available(), reason="no x86 processor, or a torch without oneDNN")


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def layer(inputs: int, outputs: int, bias: bool = True) -> nn.Linear:
    made = nn.Linear(inputs, outputs, bias)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator(inputs)) / inputs**0.5)
    return made.eval()


def net() -> nn.Module:
    torch.manual_seed(0)
    return mf.autoencoders.FullyConnected(SHAPE, 1024, 3).eval()


def by_packed(model: nn.Module) -> Callable[[Tensor], Tensor]:
    """The model, called with packed weights; some of them are."""
    weights = weights_of(model)
    assert weights
    packed = Packed(weights)
    assert len(packed) == len(weights)

    def call(x: Tensor) -> Tensor:
        with packed:
            answer: Tensor = model(x)
        return answer

    return call


@pytest.mark.parametrize(("inputs", "outputs"), LARGE)
@pytest.mark.parametrize("bias", [True, False])
@torch.no_grad()
def test_products_are_those_of_float64_within_the_rounding_of_float32(inputs: int, outputs: int, bias: bool) -> None:
    linear = layer(inputs, outputs, bias)
    found = by_packed(linear)
    for rows in (0, 1, 7, 16, 64):
        x = torch.rand(rows, inputs, generator=generator(rows)) - 0.5
        answer = found(x)
        assert answer.shape == (rows, outputs)
        exact = copy.deepcopy(linear).double()(x.double())
        # of a sum of n products of float32 the error grows as the root of n, if roundings are as good as random
        allowed = 2.0**-23 * inputs**0.5 * (x.square().sum(1).sqrt().max().item() if rows else 0)
        assert bool(((answer.double() - exact).abs() <= allowed).all())


@pytest.mark.parametrize(("inputs", "outputs"), LARGE)
@torch.no_grad()
def test_bits_of_a_row_depend_on_no_other(inputs: int, outputs: int) -> None:
    found = by_packed(layer(inputs, outputs))
    x = torch.rand(96, inputs, generator=generator(1)) - 0.5
    whole = found(x)
    for rows in (2, 3, 15, 16, 17, 32, 48, 64):  # one row may be a product of a matrix by a vector
        assert torch.equal(found(x[:rows]), whole[:rows]), rows
    assert torch.equal(found(x.flip(0)), whole.flip(0))


@torch.no_grad()
def test_awkward_inputs() -> None:
    linear = layer(1024, 1024)
    linear.weight = nn.Parameter(linear.weight.detach().t())  # not in order in memory
    found = by_packed(linear)
    usual = torch.rand(4, 1024, generator=generator(0))
    inputs = [
        usual.t().contiguous().t(),
        usual.repeat(1, 2)[:, ::2],
        usual[0],
        usual.view(2, 2, 1024),
        usual[:, None].expand(4, 3, 1024),
        torch.full((2, 1024), torch.inf),
        torch.full((2, 1024), torch.nan),
    ]
    for x in inputs:
        torch.testing.assert_close(found(x), linear(x), atol=ROUNDING, rtol=ROUNDING, equal_nan=True)


def is_left_to_torch(model: nn.Module, x: Tensor, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the packed weights are not used; the answer is then torch's own."""
    found, expected, used = by_packed(model), model(x), []
    can_have = packed._can_have

    def watched(*given: Any) -> bool:
        used.append(can_have(*given))
        return used[-1]

    monkeypatch.setattr(packed, "_can_have", watched)
    answer = found(x)
    monkeypatch.undo()
    assert any(used) or torch.equal(answer, expected)
    return not any(used)


def test_what_it_cannot_have_is_left_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    linear, x = layer(1024, 1024), torch.rand(4, 1024, generator=generator(0))
    with torch.inference_mode():
        assert not is_left_to_torch(linear, x, monkeypatch)
        with torch.autocast("cpu", torch.bfloat16):
            assert is_left_to_torch(linear, x, monkeypatch)
        with torch.backends.mkldnn.flags(enabled=False):
            assert is_left_to_torch(linear, x, monkeypatch)
        for wrong in (x.double(), x[:, :9], torch.tensor(1.0)):
            with pytest.raises(RuntimeError) as theirs:
                linear(wrong)
            with pytest.raises(RuntimeError) as ours:
                by_packed(linear)(wrong)
            assert str(ours.value) == str(theirs.value)
    assert is_left_to_torch(linear, x, monkeypatch)  # gradients
    leaf = x.clone().requires_grad_()
    by_packed(linear)(leaf).sum().backward()
    assert leaf.grad is not None


@torch.no_grad()
def test_weights_that_were_changed_are_not_those_that_were_packed() -> None:
    linear, x = layer(1024, 1024), torch.rand(4, 1024, generator=generator(0))
    found = by_packed(linear)
    linear.weight.mul_(2)
    assert torch.equal(found(x), linear(x))
    linear.weight = nn.Parameter(torch.zeros(1024, 1024))
    assert torch.equal(found(x), linear(x))
    found = by_packed(linear)
    other = {"weight": torch.ones(1024, 1024), "bias": torch.zeros(1024)}
    moved = torch.func.functional_call(linear, other, (x,))
    with Packed(weights_of(linear)):
        assert torch.equal(torch.func.functional_call(linear, other, (x,)), moved)


@torch.no_grad()
def test_derivatives_and_transforms_are_torchs() -> None:
    linear = layer(1024, 1024)
    found = by_packed(linear)
    x, tangent = torch.rand(2, 4, 1024, generator=generator(0)).unbind()
    ours, theirs = (torch.func.jvp(one, (x,), (tangent,)) for one in (found, linear))
    assert all(map(torch.equal, ours, theirs))
    assert torch.equal(torch.func.vmap(found)(x), torch.func.vmap(linear)(x))
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(x, tangent)
        assert torch.equal(forward_ad.unpack_dual(found(dual)).tangent, forward_ad.unpack_dual(linear(dual)).tangent)


class PlainNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), layer(768, 1024), nn.ReLU(), layer(1024, 768))

    def forward(self, images: Tensor) -> Tensor:
        answer: Tensor = self.layers(images).view_as(images)
        return answer


class Compiling(PlainNet):
    """Compiles its own forward."""

    @torch.compile(backend="eager")
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images)


def test_code_that_is_compiled_runs() -> None:
    model, images = Compiling().eval(), torch.rand(4, *SHAPE, generator=generator(0))
    found = by_packed(model)
    with torch.inference_mode():
        torch.testing.assert_close(found(images), model(images), atol=ROUNDING, rtol=0)


class Hooked(nn.Linear):
    """A forward and a hook of its own: what multiplies is packed, all else is as it was."""

    def __init__(self) -> None:
        super().__init__(1024, 1024)
        self.register_forward_hook(lambda module, given, answer: answer + 1)

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


@torch.no_grad()
def test_whatever_calls_the_product_does_what_it_did() -> None:
    linear = Hooked()
    x = torch.rand(4, 1024, generator=generator(0))
    torch.testing.assert_close(by_packed(linear)(x), linear(x), atol=ROUNDING, rtol=0)


class Strange(nn.Parameter):
    """A tensor that computes in its own way."""


def compiled_in_place() -> nn.Module:
    linear = layer(1024, 1024)
    linear.compile(backend="eager")
    return linear


def made_for_inference() -> nn.Module:
    with torch.inference_mode():
        return layer(1024, 1024)


def with_strange_weights() -> nn.Module:
    linear = layer(1024, 1024)
    linear.weight = linear.weight.detach().as_subclass(Strange)
    return linear


@pytest.mark.parametrize(
    "make",
    [
        lambda: layer(512, MIN_WEIGHTS // 512 - 1),
        lambda: layer(1024, 1024).double(),
        lambda: torch.compile(layer(1024, 1024)),
        compiled_in_place,
        made_for_inference,
        with_strange_weights,
        lambda: torch.nn.utils.parametrizations.weight_norm(layer(1024, 1024)),
        lambda: nn.Conv2d(1024, 1024, 1),
        lambda: torch.relu,
    ],
    ids=["small", "double", "compiled", "in place", "inference", "subclass", "computed", "convolution", "no module"],
)
def test_what_is_not_packed(make: Callable[[], nn.Module]) -> None:
    assert weights_of(make()) == []


def test_weights_that_layers_share_are_packed_once() -> None:
    model = nn.Sequential(layer(1024, 1024), nn.ReLU(), layer(1024, 8), layer(1024, 1024)).eval()
    model[3].weight = model[0].weight
    assert [id(weight) for weight in weights_of(model)] == [id(model[0].weight)]


@pytest.mark.parametrize("threads", [1, 2])
def test_recoveries_are_those_with_the_model_as_it_is(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model = net()
    members = torch.rand(20, *SHAPE, generator=generator(3))
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = [mf.iterate(model, members, max_iterations=5, tolerance=0.0).images]
        monkeypatch.setattr("memrecon_fast.engine.prox.weights_of", lambda _: [])
        found.append(mf.iterate(model, members, max_iterations=5, tolerance=0.0).images)
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(*found, atol=ROUNDING, rtol=0)


@pytest.mark.parametrize("precision", ["high", "medium"])
def test_products_are_float32_whatever_torch_is_told(precision: str) -> None:
    model, images = net(), torch.rand(16, *SHAPE, generator=generator(6))
    found = [mf.iterate(model, images, max_iterations=2, tolerance=0.0).images]
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        found.append(mf.iterate(model, images, max_iterations=2, tolerance=0.0).images)
    finally:
        torch.set_float32_matmul_precision(before)
    assert torch.equal(*found)


def test_a_change_of_the_weights_is_noticed() -> None:
    model = net()
    prox = make_prox(model, SHAPE, CPU)
    assert prox.packed_weights > 0
    with torch.no_grad():
        next(model.parameters()).mul_(1.01)
    with pytest.raises(ValueError, match="changed"):
        prox.check_unchanged()


def hide(model: nn.Module) -> None:
    model.get_parameter("layers.1.weight").data.mul_(1.5)  # torch does not count this


def hook(model: nn.Module) -> None:
    model.register_forward_hook(lambda module, given, answer: answer + 0.1)


@pytest.mark.parametrize("change", [hide, hook])
def test_a_change_that_torch_does_not_know_of_is_noticed_in_the_end(change: Callable[[nn.Module], None]) -> None:
    model = PlainNet().eval()
    images = torch.rand(8, *SHAPE, generator=generator(8))
    stream = mf.InFlight(prepare_iterate(model, SHAPE, max_iterations=2))
    assert stream.solver.prox.packed_weights == 2
    assert "2 layers packed" in stream.how
    list(stream.stream(mf.Sample(index, image) for index, image in enumerate(images)))
    change(model)
    with pytest.raises(AutoencoderChangedError):
        list(stream.stream(mf.Sample(index, image) for index, image in enumerate(images)))
    assert stream.solver.prox.packed_weights == 2


class Counting(PlainNet):
    """Replaces a buffer in each call."""

    calls: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, images: Tensor) -> Tensor:
        self.calls = self.calls + 1
        return super().forward(images)


def test_it_is_the_model_itself_that_is_called() -> None:
    model = Counting().eval()
    images = torch.rand(8, *SHAPE, generator=generator(9))
    found = mf.iterate(model, images, max_iterations=2, tolerance=0.0).images
    with torch.inference_mode():
        torch.testing.assert_close(found, model(model(images)), atol=ROUNDING, rtol=0)
    assert model.calls > 2


def test_a_model_with_gradients_inside_gets_them() -> None:
    class Descending(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = net()

        def forward(self, images: Tensor) -> Tensor:
            images.requires_grad_()
            (slope,) = torch.autograd.grad(self.inner(images).square().sum(), images)
            answer: Tensor = (images - 0.1 * slope).detach()
            return answer

    model = Descending().eval()
    rows = torch.rand(16, 768, generator=generator(4))
    prox = make_prox(model, SHAPE, CPU)
    with torch.inference_mode():
        expected = with_gradients(model)(rows.view(-1, *SHAPE)).flatten(1)
        assert torch.equal(prox(rows), expected)


def test_every_number_of_rows_gives_the_same_bits_in_a_prox() -> None:
    prox = make_prox(net(), SHAPE, CPU)
    rows = torch.rand(160, 768, generator=generator(5))
    with torch.inference_mode():
        whole = prox(rows)
        for first, count in itertools.product((0, 31, 64), (1, 2, 16, 33, 96)):
            assert torch.equal(prox(rows[first : first + count]), whole[first : first + count])

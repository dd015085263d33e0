"""Linear layers with packed weights, against torch's own."""

from __future__ import annotations

import copy
import itertools
import threading
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

import memrecon_fast as mf
from memrecon_fast.engine import packed
from memrecon_fast.engine.packed import MIN_WEIGHTS, pack
from memrecon_fast.engine.precision import in_format, with_gradients
from memrecon_fast.engine.prox import make_prox

CPU = torch.device("cpu")
SHAPE = (3, 16, 16)
LARGE = [(1024, 1024), (768, 1024), (12288, 100), (1000, 1030), (513, 1031)]

pytestmark = pytest.mark.skipif(not packed._is_available(), reason="no x86 processor, or a torch without oneDNN")


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def layer(inputs: int, outputs: int, bias: bool = True) -> nn.Linear:
    made = nn.Linear(inputs, outputs, bias)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator(inputs)) / inputs**0.5)
    return made.eval()


def is_packed(module: nn.Module) -> bool:
    return "forward" in vars(module)


def net(depth: int = 3, width: int = 1024) -> nn.Module:
    torch.manual_seed(0)
    return mf.autoencoders.FullyConnected(SHAPE, width, depth).eval()


@pytest.mark.parametrize(("inputs", "outputs"), LARGE)
@pytest.mark.parametrize("bias", [True, False])
@torch.inference_mode()
def test_products_are_those_of_float64_within_the_rounding_of_float32(inputs: int, outputs: int, bias: bool) -> None:
    linear = layer(inputs, outputs, bias)
    found = pack(linear)
    assert found is not None
    assert is_packed(found)
    for rows in (0, 1, 7, 16, 64):
        x = torch.rand(rows, inputs, generator=generator(rows)) - 0.5
        exact = copy.deepcopy(linear).double()(x.double())
        # sums of `inputs` products in any order: their rounding errors add up to no more than this
        allowed = 2.0**-23 * inputs**0.5 * x.square().sum(1).sqrt().max().item() if rows else 0.0
        assert (found(x).double() - exact).abs().max().item() <= allowed if rows else found(x).shape == (0, outputs)


@pytest.mark.parametrize(("inputs", "outputs"), LARGE)
@torch.inference_mode()
def test_bits_of_a_row_depend_on_no_other(inputs: int, outputs: int) -> None:
    found = pack(layer(inputs, outputs))
    assert found is not None
    x = torch.rand(96, inputs, generator=generator(1)) - 0.5
    whole = found(x)
    for rows in (2, 3, 15, 16, 17, 32, 48, 64):  # one row may be a product of a matrix by a vector
        assert torch.equal(found(x[:rows]), whole[:rows]), rows
    assert torch.equal(found(x.flip(0)), whole.flip(0))


@torch.inference_mode()
def test_awkward_inputs() -> None:
    linear = layer(1024, 1024)
    linear.weight = nn.Parameter(linear.weight.detach().t())  # not in order in memory
    found = pack(linear)
    assert found is not None
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
        torch.testing.assert_close(found(x), linear(x), atol=2e-6, rtol=2e-6, equal_nan=True)


def test_what_it_cannot_have_goes_to_its_own_forward() -> None:
    linear = layer(1024, 1024)
    found = pack(linear)
    assert found is not None
    x = torch.rand(4, 1024, generator=generator(0))
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(found(x), linear(x))
        assert found(x).dtype == torch.bfloat16
    with torch.inference_mode(), torch.backends.mkldnn.flags(enabled=False):
        assert torch.equal(found(x), linear(x))
    with torch.inference_mode():
        for wrong in (x.double(), x[:, :9], torch.tensor(1.0)):
            with pytest.raises(RuntimeError) as theirs:
                linear(wrong)
            with pytest.raises(RuntimeError) as ours:
                found(wrong)
            assert str(ours.value) == str(theirs.value)
    leaf = x.clone().requires_grad_()
    found(leaf).sum().backward()
    assert leaf.grad is not None
    assert found(x).requires_grad  # as torch's own: the weights do


@torch.no_grad()
def test_derivatives_and_transforms_are_those_of_its_own_forward() -> None:
    linear = layer(1024, 1024)
    found = pack(linear)
    assert found is not None
    x, tangent = torch.rand(2, 4, 1024, generator=generator(0)).unbind()
    for ours, theirs in zip(
        torch.func.jvp(found, (x,), (tangent,)), torch.func.jvp(linear, (x,), (tangent,)), strict=True
    ):
        assert torch.equal(ours, theirs)
    assert torch.equal(torch.func.vmap(found)(x), torch.func.vmap(linear)(x))
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(x, tangent)
        assert torch.equal(forward_ad.unpack_dual(found(dual)).tangent, forward_ad.unpack_dual(linear(dual)).tangent)


class Compiling(nn.Module):
    """Compiles its own forward."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), layer(768, 1024), nn.ReLU(), layer(1024, 768))

    @torch.compile(backend="eager")
    def forward(self, images: Tensor) -> Tensor:
        answer: Tensor = self.layers(images).view_as(images)
        return answer


def test_in_code_that_is_compiled_it_is_its_own_forward() -> None:
    model, images = Compiling().eval(), torch.rand(4, *SHAPE, generator=generator(0))
    found = pack(model)
    assert found is not None
    assert any(map(is_packed, found.modules()))
    with torch.inference_mode():
        assert torch.equal(found(images), model(images))


class Doubled(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


def hooked() -> nn.Module:
    linear = layer(1024, 1024)
    linear.register_forward_hook(lambda module, given, answer: answer + 1)
    return linear


class Locked(nn.Linear):
    """Cannot be copied."""

    def __init__(self) -> None:
        super().__init__(1024, 1024)
        self.lock = threading.Lock()


@pytest.mark.parametrize(
    "make",
    [
        lambda: layer(512, MIN_WEIGHTS // 512 - 1),
        lambda: Doubled(1024, 1024),
        hooked,
        lambda: layer(1024, 1024).double(),
        lambda: torch.compile(layer(1024, 1024)),
        Locked,
        lambda: nn.Conv2d(1024, 1024, 1),
        lambda: torch.relu,
    ],
    ids=["small", "own forward", "hooks", "double", "compiled", "cannot be copied", "convolution", "no module"],
)
def test_what_is_not_packed(make: Callable[[], nn.Module]) -> None:
    model = make()
    assert pack(model) is None
    assert in_format(model, "float32", CPU) == [model]


def test_the_copy_shares_its_weights_and_leaves_the_model_as_it_was() -> None:
    model = nn.Sequential(layer(1024, 1024), nn.ReLU(), layer(1024, 8)).eval()
    found = pack(model)
    assert isinstance(found, nn.Sequential)
    assert [is_packed(module) for module in found] == [True, False, False]
    assert not any(map(is_packed, model))
    for ours, theirs in zip(found.parameters(), model.parameters(), strict=True):
        assert ours is theirs


@pytest.mark.parametrize("threads", [1, 2])
def test_recoveries_are_those_with_the_model_as_it_is(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model = net()
    members = torch.rand(20, *SHAPE, generator=generator(3))
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = [mf.iterate(model, members, max_iterations=5, tolerance=0.0).images]
        monkeypatch.setattr("memrecon_fast.engine.precision.pack", lambda _: None)
        found.append(mf.iterate(model, members, max_iterations=5, tolerance=0.0).images)
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(*found, atol=1e-6, rtol=0)  # five passes, each rounded to some 1e-7


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
    assert prox._autoencoder is not model
    with torch.no_grad():
        next(model.parameters()).mul_(1.01)
    with pytest.raises(ValueError, match="changed"):
        prox.check_unchanged()


class Computed(nn.Module):
    """The weights of a layer are computed in each call; between them it has others."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = layer(768, 768)
        self.scale = nn.Parameter(torch.tensor(0.3))
        self.weight = self.layer.weight
        del self.layer.weight
        self.layer.weight = torch.zeros(768, 768)

    def forward(self, images: Tensor) -> Tensor:
        self.layer.weight = self.weight * self.scale
        answer: Tensor = self.layer(images.flatten(1)).view_as(images)
        self.layer.weight = torch.zeros(768, 768)
        return answer


def test_a_model_that_changes_weights_while_it_runs_answers_as_it_does() -> None:
    model = Computed().eval()
    found = pack(model)
    assert found is not None
    rows = torch.rand(16, 768, generator=generator(7))
    with torch.inference_mode():
        expected = model(rows.view(-1, *SHAPE)).flatten(1)
        assert not torch.allclose(found(rows.view(-1, *SHAPE)).flatten(1), expected, atol=0.1)  # without the check
        assert torch.equal(make_prox(model, SHAPE, CPU)(rows), expected)


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

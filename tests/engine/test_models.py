"""Models of unusual kinds: compiled, lazy, sparse, with gradients inside, for certain numbers of images, and those that
end the program."""

from __future__ import annotations

import copy
import re
import sys
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import memrecon_fast as mf
from memrecon_fast import Settings
from memrecon_fast.audit.model import as_model
from memrecon_fast.audit.plan import model_digest
from memrecon_fast.common.errors import is_of_autoencoder
from memrecon_fast.engine.prox import Prox, make_prox
from memrecon_fast.engine.stated import stated_batch_sizes

CPU = torch.device("cpu")
SHAPE = (3, 4, 4)
SETTINGS = Settings(solver="paper", gamma=0.5, max_outer_iterations=2)


def make_net() -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Flatten(), nn.Linear(48, 20), nn.LeakyReLU(), nn.Linear(20, 48), nn.Unflatten(1, SHAPE)
    return nn.Sequential(*layers).eval()


NET = make_net()
DEGRADED = torch.rand(5, *SHAPE, generator=torch.Generator().manual_seed(0))


def compiled_in_place() -> nn.Module:
    net = copy.deepcopy(NET)
    net.compile(backend="eager")
    return net


class Unusual(nn.Module):
    """Has no truth value, no length that says anything, and is not to be compared."""

    def __init__(self) -> None:
        super().__init__()
        self.net = NET

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)  # type: ignore[no-any-return]

    def __len__(self) -> int:
        return 0

    def __bool__(self) -> bool:
        raise TypeError("no truth value")

    def __eq__(self, other: object) -> bool:
        raise TypeError("not to be compared")

    __hash__ = nn.Module.__hash__


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.compile(NET, backend="eager"),
        lambda: torch.compile(lambda x: NET(x), backend="eager"),
        compiled_in_place,
        lambda: Unusual().eval(),
    ],
)
def test_compiled_and_unusual_modules_are_recovered_from(make: Callable[[], Any]) -> None:
    expected = mf.recover(NET, DEGRADED, settings=SETTINGS)
    assert torch.equal(mf.recover(make(), DEGRADED, settings=SETTINGS).images, expected.images)


def test_the_trial_compiles_nothing_operation_by_operation() -> None:
    graphs: list[int] = []

    def backend(graph: torch.fx.GraphModule, inputs: Any) -> Any:
        graphs.append(len(graph.graph.nodes))
        return graph.forward

    torch._dynamo.reset()
    make_prox(torch.compile(NET, backend=backend), SHAPE, CPU)
    assert 1 <= len(graphs) <= 3  # one for each number of rows, or for any


def test_a_compiled_model_is_known_by_what_was_compiled() -> None:
    compiled = torch.compile(NET, backend="eager")
    assert model_digest(compiled) == model_digest(NET)
    sent = as_model(compiled, in_workers=True)
    assert sent.load(CPU) is NET
    assert sent.name == "Sequential"


class Sparse(nn.Module):
    operator: Tensor

    def __init__(self, number: float = 0.5) -> None:
        super().__init__()
        self.register_buffer("operator", (number * torch.eye(48)).to_sparse())
        self.weight = nn.Parameter(torch.eye(48).to_sparse(), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        columns: Tensor = torch.sparse.mm(self.weight, torch.sparse.mm(self.operator, x.flatten(1).T))
        return columns.T.view_as(x)


def test_sparse_parameters_and_buffers() -> None:
    half = mf.iterate(Sparse().eval(), DEGRADED, max_iterations=1)
    torch.testing.assert_close(half.images, 0.5 * DEGRADED)
    assert model_digest(Sparse()) == model_digest(Sparse()) != model_digest(Sparse(0.25))
    assert as_model(Sparse().eval(), in_workers=True).load(CPU)(DEGRADED).shape == DEGRADED.shape
    for layout in (torch.sparse_csr, torch.sparse_csc, torch.strided):
        module = nn.Module()
        module.register_buffer("operator", torch.eye(4).to_sparse(layout=layout) if layout != torch.strided else None)
        assert model_digest(module)


def test_complex_and_double_numbers() -> None:
    class Fourier(nn.Module):
        scale: Tensor

        def __init__(self, weight: complex) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.full((3, 4, 3), weight, dtype=torch.complex64))
            self.register_buffer("scale", torch.ones((), dtype=torch.float64))

        def forward(self, x: Tensor) -> Tensor:
            answer: Tensor = torch.fft.irfft2(torch.fft.rfft2(x) * self.weight, s=(4, 4)) * self.scale
            return answer

    got = mf.iterate(Fourier(0.5).eval(), DEGRADED, max_iterations=1)
    torch.testing.assert_close(got.images, 0.5 * DEGRADED)
    assert model_digest(Fourier(0.5)) != model_digest(Fourier(0.5j))
    in_double = Fourier(0.5).eval().double()
    in_double.weight.data = in_double.weight.data.to(torch.complex128)
    with pytest.raises(TypeError, match=r"its parameter weight is torch.complex128"):
        mf.recover(in_double, DEGRADED)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (
            nn.Sequential(nn.Flatten(), nn.LazyLinear(48)),
            "is lazy: its parameter 1.weight has no shape",
        ),
        (nn.Sequential(nn.LazyBatchNorm2d()), "is lazy: its parameter 0.weight"),
        (nn.Linear(4, 4, device="meta"), "parameter weight is on the device 'meta', without values"),
    ],
)
def test_weights_that_are_not_there(module: nn.Module, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mf.recover(module.eval(), DEGRADED)
    with pytest.raises(ValueError, match=message):
        mf.iterate(module.eval(), DEGRADED)


class Score(nn.Module):
    """A gradient step on ‖x − net(x)‖²/2, as score models make one."""

    def __init__(self, enable: bool) -> None:
        super().__init__()
        self.net, self.enable = NET, enable

    def forward(self, x: Tensor) -> Tensor:
        if not self.enable:
            return self.step(x)
        with torch.enable_grad():
            return self.step(x)

    def step(self, x: Tensor) -> Tensor:
        x = x.detach().requires_grad_(True)
        energy = 0.5 * (x - self.net(x)).square().sum()
        return x - 0.1 * torch.autograd.grad(energy, x)[0]


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("enable", [True, False])
def test_gradients_inside_a_forward_pass(enable: bool, mode: Callable[[], Any]) -> None:
    score = Score(enable).eval()
    expected = score(DEGRADED)
    with mode():
        got = mf.iterate(score, DEGRADED, max_iterations=1)
        assert not mf.recover(score, DEGRADED, settings=SETTINGS).doubt
    torch.testing.assert_close(got.images, expected.detach())
    assert not got.images.requires_grad
    in_bfloat16 = Settings(solver="paper", precision="bfloat16", max_outer_iterations=2)
    assert mf.recover(score, DEGRADED, settings=in_bfloat16).images.isfinite().all()


class EndedError(BaseException):
    """Of somebody else's."""


def end(x: Tensor) -> Tensor:
    sys.exit(0)


def end_otherwise(x: Tensor) -> Tensor:
    raise EndedError("of its own")


def warn(x: Tensor) -> Tensor:
    warnings.warn("as models do", stacklevel=1)
    return x


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (end, r"tried to end the program \(SystemExit: 0\)"),
        (end_otherwise, r"tried to end the program \(EndedError: of its own\)"),
        (warn, "UserWarning: as models do"),
        (lambda x: vars()["missing"], "KeyError: 'missing'"),
    ],
)
def test_whatever_a_forward_pass_raises_is_said(model: Any, message: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match=rf"autoencoder fails on a batch of shape \(16, 3, 4, 4\): .*{message}"):
            mf.recover(model, DEGRADED)


@pytest.mark.parametrize("failure", [end, end_otherwise, lambda x: 1 // 0])
def test_what_a_forward_pass_raises_later_is_an_exception_that_says_where_it_came_from(failure: Any) -> None:
    calls = 0

    def model(x: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return failure(x) if calls > 30 else NET(x)  # type: ignore[no-any-return]

    kind = ZeroDivisionError if failure not in (end, end_otherwise) else RuntimeError
    with pytest.raises(kind) as raised:
        mf.recover(model, DEGRADED, settings=SETTINGS)
    assert is_of_autoencoder(raised.value)


class Bounded(nn.Module):
    """Takes certain numbers of images."""

    def __init__(self, sizes: range) -> None:
        super().__init__()
        self.net, self.batch_sizes = NET, sizes
        self.seen: set[int] = set()

    def forward(self, x: Tensor) -> Tensor:
        assert len(x) in self.batch_sizes
        self.seen.add(len(x))
        return self.net(x)  # type: ignore[no-any-return]


@pytest.mark.parametrize("sizes", [range(1, 33), range(3, 50), range(2, 41, 2), range(40, 90), range(24, 25)])
def test_no_other_numbers_of_images_than_an_autoencoder_takes(sizes: range) -> None:
    many = DEGRADED.repeat(16, 1, 1, 1)
    expected = mf.recover(NET, many, settings=SETTINGS).images
    bounded = Bounded(sizes).eval()
    assert stated_batch_sizes(nn.Sequential(bounded)) is sizes
    for model in (bounded, nn.Sequential(bounded).eval()):
        assert torch.equal(mf.recover(model, many, settings=SETTINGS).images, expected)
        assert torch.equal(mf.recover(model, many, settings=SETTINGS, slots=7).images, expected)
        assert mf.iterate(model, many[:1], max_iterations=2).images.shape == (1, *SHAPE)
    assert bounded.seen <= set(sizes)


def test_a_number_that_is_no_multiple_is_always_the_same_and_is_said() -> None:
    bounded = Bounded(range(5, 8)).eval()
    with pytest.warns(RuntimeWarning, match="takes 7 images at a time, no multiple of"):
        prox = make_prox(bounded, SHAPE, CPU)
    prox.row_multiple = 16
    assert [*prox.block_sizes(1)] == [*prox.block_sizes(64)] == [7]
    assert prox.most_rows == 7


@pytest.mark.parametrize(
    ("sizes", "slots", "expected"),
    [
        (range(1, 33), 64, [4, 8, 12, 16, 20, 24, 28, 32]),
        (range(1, 31), 64, [4, 8, 12, 16, 20, 24, 28]),
        (range(10, 33), 3, [12]),
        (range(6, 61, 6), 30, [12, 24, 36]),
        (range(5, 8), 30, [7]),
    ],
)
def test_the_sizes_of_blocks(sizes: range, slots: int, expected: list[int]) -> None:
    prox = Prox(Bounded(sizes), SHAPE, CPU)
    prox.row_multiple = 4
    if sizes == range(5, 8):
        prox.row_multiple = 8
    assert list(prox.block_sizes(slots)) == expected


@pytest.mark.parametrize("size", [1, 8, 10, 64])
def test_a_model_that_takes_one_other_number_of_images_is_told_which(size: int) -> None:
    class Fixed(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.view(size, 48).view(size, *SHAPE) * 1

    model = Fixed().eval()
    message = (
        rf"^autoencoder fails on a batch of shape \(16, 3, 4, 4\): RuntimeError: shape '\[{size}, 48\]' is invalid .*; "
        rf"it was tried on 16 images, with pixels from -1 to 2, and takes {size} at a time: say so in its attribute, "
        rf"for instance batch_sizes = range\({size}, {size + 1}\)$"
    )
    with pytest.raises(ValueError, match=message):
        mf.recover(model, DEGRADED)
    model.batch_sizes = range(size, size + 1)  # type: ignore[assignment]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # such a number may be no multiple of what the processor needs
        assert mf.iterate(model, DEGRADED, max_iterations=2).images.shape == DEGRADED.shape


@pytest.mark.parametrize("takes_images", [False, True])
def test_a_model_of_flat_vectors_is_told_what_to_wrap_it_in(takes_images: bool) -> None:
    flat = nn.Linear(48, 48)
    model = nn.Sequential(nn.Flatten(), flat) if takes_images else flat
    with pytest.raises(ValueError, match=r"torch\.nn\.Sequential") as raised:
        mf.recover(model.eval(), DEGRADED)
    (wrapped,) = re.findall(r"torch\.nn\.Sequential\(.*\)\)\)?", str(raised.value))
    made = eval(wrapped, {"torch": torch, "model": model})
    assert mf.iterate(made.eval(), DEGRADED, max_iterations=2).images.shape == DEGRADED.shape


def test_a_model_that_takes_no_pixels_outside_of_0_and_1_is_told() -> None:
    class Strict(nn.Module):
        clamped = False

        def forward(self, x: Tensor) -> Tensor:
            x = x.clamp(0, 1) if self.clamped else x
            if x.min() < 0 or x.max() > 1:
                raise ValueError("pixels must lie in [0, 1]")
            return NET(x)  # type: ignore[no-any-return]

    model = Strict().eval()
    message = (
        r"ValueError: pixels must lie in \[0, 1\]; it was tried on 16 images, with pixels from -1 to 2, and takes them "
        r"where these lie in \[0, 1\]\. .* or see x\.clamp\(0, 1\)$"
    )
    with pytest.raises(ValueError, match=message) as raised:
        mf.recover(model, DEGRADED)
    assert isinstance(raised.value.__cause__, ValueError)
    model.clamped = True
    assert mf.recover(model, DEGRADED, settings=SETTINGS).images.shape == DEGRADED.shape


def test_of_a_model_that_fails_on_all_images_the_trial_is_described() -> None:
    with pytest.raises(
        ValueError, match=r"tried on 16 images, .* If it takes certain numbers of images alone, say so in"
    ):
        mf.recover(nn.Conv2d(1, 1, 1).eval(), DEGRADED)


def test_a_model_that_takes_one_number_of_images_is_told_to_say_so() -> None:
    def fixed(x: Tensor) -> Tensor:
        assert len(x) == 16
        return x

    with pytest.raises(ValueError, match=r"fails on a batch of 4 images, though not on the first: .*batch_sizes"):
        mf.recover(fixed, DEGRADED)

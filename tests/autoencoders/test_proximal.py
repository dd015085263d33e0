"""`is_proximal` on nets that are proximity operators and nets that are not; ADMM with the former converges."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import memrecon_fast as mf
from memrecon_fast.autoencoders import FullyConnected, Tied, UNet, is_proximal, proximal, train
from memrecon_fast.autoencoders.layers import ACTIVATIONS
from memrecon_fast.ops import choose
from memrecon_fast.ops.admm import AdmmState, plain
from memrecon_fast.results import RUNNING
from tests.helpers.against_plain import state_of
from tests.helpers.memorised import open_photographs

SHAPE = (3, 8, 8)
GAMMAS = (0.1, 0.5, 1.0, 4.0)


@dataclasses.dataclass(frozen=True)
class Trained:
    members: Tensor
    controls: Tensor
    tied: Tied
    softplus: Tied
    untied: nn.Module
    """As many layers and units, trained on the same photographs to a loss of the same size."""


@pytest.fixture(scope="module")
def trained() -> Trained:
    members, controls = (some[:8] for some in open_photographs())
    tied, softplus = Tied(SHAPE, 64), Tied(SHAPE, 64, "softplus")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder, decoder = nn.Linear(192, 64, bias=False), nn.Linear(64, 192, bias=False)
    untied = nn.Sequential(nn.Flatten(), encoder, nn.LeakyReLU(), decoder, nn.Unflatten(1, SHAPE))
    assert train(tied, members, 1e-9, max_steps=300).loss < 2e-4
    assert train(untied, members, 1e-9, max_steps=600, learning_rate=3e-3).loss < 2e-4
    assert train(softplus, members, 1e-9, max_steps=300).loss < 3e-2
    return Trained(members, controls, tied, softplus, untied.eval())


class TiedLike(nn.Module):
    """Wᵀρ(Wx) with any W and ρ."""

    def __init__(self, weight: Tensor, rho: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.weight, self.rho = nn.Parameter(weight), rho

    def forward(self, images: Tensor) -> Tensor:
        codes = self.rho(functional.linear(images.flatten(1), self.weight))
        answer: Tensor = functional.linear(codes, self.weight.T).view(images.shape)
        return answer


def with_singular_values(values: Tensor, d: int) -> Tensor:
    """W (m, d) that has these."""
    random = torch.randn(d, len(values), generator=torch.Generator().manual_seed(0))
    directions: Tensor = torch.linalg.qr(random).Q.T
    return values[:, None] * directions


@pytest.fixture(params=["exactly", "by products"])
def both_ways(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "by products":
        monkeypatch.setattr(proximal, "_MOST_EXACT", 0)
    return str(request.param)


@pytest.mark.usefixtures("both_ways")
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize(("shape", "width"), [((3, 8, 8), 40), ((1, 5, 7), 60), ((1, 1, 2), 3), ((1, 1, 1), 1)])
def test_it_is_true_of_tied(activation: str, shape: tuple[int, ...], width: int) -> None:
    model = Tied(shape, width, activation).eval()
    found = is_proximal(model, torch.rand(3, *shape) * 2 - 1)
    assert found
    assert found.verdict
    assert "yes, at 3 of 3 images" in repr(found)


def test_it_is_true_of_a_trained_one_at_photographs_and_elsewhere(trained: Trained) -> None:
    for model in (trained.tied, trained.softplus):
        found = is_proximal(model, torch.cat([trained.members, trained.controls, torch.rand(1, *SHAPE)]))
        assert found.proximal.all()
    assert is_proximal(trained.tied, trained.members).largest.min() > 0.9  # f(x) ≈ x along x, where ρ' is 1


@pytest.mark.usefixtures("both_ways")
@pytest.mark.parametrize(
    "model",
    [
        FullyConnected(SHAPE, 32, 3),
        FullyConnected(SHAPE, 32, 10, "softplus"),
        UNet(SHAPE, (4, 6)),
        UNet(SHAPE, (4, 6, 8), "prelu", "all"),
    ],
)
def test_it_is_false_of_others(model: nn.Module) -> None:
    found = is_proximal(model.eval(), torch.rand(2, *SHAPE))
    assert not found
    assert not found.proximal.any()
    # J and Jᵀ of random nets have as good as nothing in common: ‖J − Jᵀ‖ = √2 ‖J‖
    torch.testing.assert_close(found.asymmetry, torch.full((2,), 2**0.5, dtype=torch.float64), rtol=0.2, atol=0)


def test_it_is_false_of_an_untied_net(trained: Trained) -> None:
    found = is_proximal(trained.untied, trained.members)
    assert not found.proximal.any()
    assert found.asymmetry.min() > 0.1


@pytest.mark.usefixtures("both_ways")
@pytest.mark.parametrize(("largest", "yes"), [(0.99, True), (1.0, True), (1.001, False), (1.5, False)])
def test_one_singular_value_above_1_makes_it_false(largest: float, yes: bool) -> None:
    values = torch.full((20,), 0.5)
    values[7] = largest
    found = is_proximal(TiedLike(with_singular_values(values, 192), nn.Identity()).eval(), torch.rand(2, *SHAPE))
    assert found.verdict == yes
    torch.testing.assert_close(found.largest, torch.full((2,), largest**2, dtype=torch.float64), rtol=1e-5, atol=1e-5)
    assert (found.asymmetry < 1e-6).all()


@pytest.mark.usefixtures("both_ways")
@pytest.mark.parametrize(
    ("rho", "low", "high"),
    [
        (nn.LeakyReLU(1.2), 0.0, 1.2),  # where it is negative
        (nn.LeakyReLU(-0.1), -0.1, 1.0),
        (lambda z: 1.1 * torch.sin(z), 0.0, 1.1),
        (nn.PReLU(init=1.2), 0.0, 1.2),
    ],
)
def test_a_derivative_beyond_0_and_1_makes_it_false(rho: Callable[[Tensor], Tensor], low: float, high: float) -> None:
    # rows of the identity: the eigenvalues are the derivatives, and 0
    model = TiedLike(torch.eye(192)[:150], rho).eval()
    images = torch.rand(2, *SHAPE) - 0.5
    images[:, 0, 0, :2] = torch.tensor([-0.5, 0.0])
    found = is_proximal(model, images)
    assert not found.proximal.any()
    torch.testing.assert_close(found.smallest, torch.full((2,), low, dtype=torch.float64), rtol=0, atol=1e-4)
    torch.testing.assert_close(found.largest, torch.full((2,), high, dtype=torch.float64), rtol=0, atol=1e-4)


def test_it_is_of_these_images_alone() -> None:
    model = TiedLike(torch.eye(4), nn.LeakyReLU(1.2)).eval()
    images = torch.full((2, 1, 2, 2), 0.5)
    images[1] *= -1
    assert is_proximal(model, images).proximal.tolist() == [True, False]
    assert is_proximal(model, images[:1])


@pytest.mark.parametrize("name", ["tied", "untied"])
def test_both_ways_agree(name: str, trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    model = getattr(trained, name)
    exactly = is_proximal(model, trained.members[:3])
    monkeypatch.setattr(proximal, "_MOST_EXACT", 0)
    by_products = is_proximal(model, trained.members[:3])
    assert (exactly.error == 0).all()
    assert (by_products.error > 0).all()
    # the residual of an approximate eigenvector bounds the distance to an eigenvalue; and rounding of float32
    for of in ("smallest", "largest"):
        off = (getattr(exactly, of) - getattr(by_products, of)).abs()
        assert (off <= by_products.error + 1e-5).all()
    # of 16 random vectors; float32 for what is symmetric
    torch.testing.assert_close(by_products.asymmetry, exactly.asymmetry, rtol=0.3, atol=1e-6)


def test_what_has_not_settled_is_not_taken_for_yes(monkeypatch: pytest.MonkeyPatch) -> None:
    model = TiedLike(with_singular_values(torch.linspace(0, 1, 192).sqrt(), 192), nn.Identity()).eval()
    images = torch.rand(1, *SHAPE)
    monkeypatch.setattr(proximal, "_MOST_EXACT", 0)
    assert is_proximal(model, images)
    monkeypatch.setattr(proximal, "_MOST_STEPS", 10)
    found = is_proximal(model, images)
    assert not found
    assert found.error.item() > found.tolerance
    assert "±" in repr(found)


@pytest.mark.usefixtures("both_ways")
def test_maps_that_depend_on_nothing_and_that_change_nothing_are_proximal() -> None:
    images = torch.rand(2, 1, 3, 5)
    found = is_proximal(lambda x: torch.full_like(x, 0.5), images)
    assert found
    assert (found.asymmetry == 0).all()
    assert is_proximal(lambda x: x, images)
    assert is_proximal(nn.ReLU(inplace=True).eval(), images)
    assert is_proximal(nn.Hardtanh(0, 1).eval(), images.double())


@pytest.mark.usefixtures("both_ways")
def test_convolutions_in_any_shape() -> None:
    kernel = torch.tensor([[0.0, 1.0, 0.0], [1.0, 4.0, 1.0], [0.0, 1.0, 0.0]]) / 8  # symmetric, eigenvalues in [0, 1]
    blur = nn.Conv2d(1, 1, 3, padding=1, bias=False).eval()
    with torch.no_grad():
        blur.weight.copy_(kernel)
    images = torch.rand(2, 1, 7, 5).contiguous(memory_format=torch.channels_last)
    found = is_proximal(blur, images)
    assert found
    # of a path of n points cos(πk/(n + 1)): (4 + 2 cos + 2 cos)/8
    corners = torch.tensor([torch.pi / 8, torch.pi / 6], dtype=torch.float64).cos().sum() / 4
    torch.testing.assert_close(found.largest, (0.5 + corners).expand(2), rtol=0, atol=1e-5)
    torch.testing.assert_close(found.smallest, (0.5 - corners).expand(2), rtol=0, atol=1e-5)
    with torch.no_grad():
        blur.weight[0, 0, 0, 1] = 0.2
    assert not is_proximal(blur, images)


def test_nothing_is_left_behind() -> None:
    model, images = Tied(SHAPE, 8, "prelu").eval(), torch.rand(2, *SHAPE)
    before = images.clone()
    state = torch.get_rng_state()
    with torch.inference_mode():
        assert is_proximal(model, images.clone())
    assert is_proximal(model, images)
    assert torch.equal(images, before)
    assert not images.requires_grad
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), state)


class Noisy(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images / 2 + 0.1 * torch.randn_like(images)


@pytest.mark.usefixtures("both_ways")
@pytest.mark.parametrize(
    ("model", "images", "error", "message"),
    [
        (Tied(SHAPE, 8), torch.rand(2, *SHAPE), ValueError, "training mode; call model.eval"),
        (nn.Sequential(nn.Dropout(), nn.ReLU().eval()).eval().train(), torch.rand(2, 4), ValueError, "training mode"),
        (Tied(SHAPE, 8).eval(), torch.rand(2, 3, 8, 9), ValueError, r"images of shape \(3, 8, 8\); these are"),
        (Tied(SHAPE, 8).eval(), torch.rand(*SHAPE), ValueError, r"images of shape \(3, 8, 8\); these are"),
        (nn.Linear(3, 3).eval(), torch.rand(2, 4), ValueError, r"model fails on images of shape \(4,\): RuntimeError"),
        (nn.Linear(4, 3).eval(), torch.rand(2, 4), ValueError, "they must be alike"),
        (nn.Identity().eval(), torch.rand(0, 4), ValueError, "at least one"),
        (nn.Identity().eval(), torch.tensor([[0.0, torch.nan]]), ValueError, "images have NaN or infinite entries"),
        (lambda x: x / 0, torch.rand(2, 4), ValueError, "the model's answers have NaN or infinite entries"),
        (lambda x: x.sqrt(), torch.zeros(2, 4), ValueError, "the model's Jacobian has NaN or infinite entries"),
        (nn.Identity().eval(), torch.zeros(2, 4, dtype=torch.uint8), TypeError, "float32 or float64 tensor, not torch"),
        ("model", torch.rand(2, 4), TypeError, "must be callable, not str"),
        (lambda x: (x, x), torch.rand(2, 4), ValueError, "returned a tuple, not a tensor"),
        (lambda x: 0.5 * x.detach(), torch.rand(2, 4), ValueError, "gradients are not those of the function"),
        (lambda x: (x * 16).round() / 16, torch.rand(2, 192), ValueError, "gradients are not those of the function"),
        (lambda x: x - x.mean(0), torch.rand(2, 4), ValueError, "depends on what else is in the batch"),
        (Noisy().eval(), torch.rand(2, 4), ValueError, "or on chance"),
    ],
)
def test_what_is_wrong_is_said(model: nn.Module, images: Tensor, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as raised:
        is_proximal(model, images)
    assert "\n" not in str(raised.value)


def test_a_tolerance_is_above_0() -> None:
    with pytest.raises(ValueError, match="tolerance must be finite and above 0"):
        is_proximal(nn.Identity().eval(), torch.rand(2, 4), tolerance=0)


# ADMM with a proximity operator is a convex method (Corollary 1): it must converge, whatever γ and the start are.


def erased(images: Tensor) -> tuple[Tensor, Tensor]:
    mask = mf.degradation.make_mask("half", SHAPE)
    return mf.degradation.erase(images, mask), mask.expand(len(images), *SHAPE)


@dataclasses.dataclass(frozen=True)
class Course:
    """Of ADMM steps, the largest of all images."""

    v: Tensor
    split: list[float]
    """‖ξ − v‖ after each step."""
    moved: list[float]
    """‖s⁺ − s‖, s what enters f."""


def admm(model: nn.Module, y: Tensor, mask: Tensor, gamma: float, steps: int, start: Tensor | None = None) -> Course:
    """The package's own steps with a known mask, as a solver makes them."""
    operations = choose("auto", torch.device("cpu")).admm
    rows, gammas = len(y), torch.full((len(y),), gamma, dtype=torch.float64)
    buffers = {"y": y.flatten(1).clone(), "mask": mask.flatten(1).contiguous(), "gamma": gammas}
    buffers |= {"coefficients": plain.coefficients(gammas), "status": torch.full((rows,), RUNNING, dtype=torch.int8)}
    state = state_of(AdmmState, buffers | {"s": torch.zeros(rows, 192)})
    split, moved = [], []
    with torch.inference_mode():
        operations.start(state)
        if start is not None:
            state.s.copy_(start)
        v = model(state.s.view(-1, *SHAPE)).flatten(1)
        for _ in range(steps):
            s, u = state.s.clone(), state.s - v  # (14)
            operations.step(state, v)
            v = model(state.s.view(-1, *SHAPE)).flatten(1)
            split.append(float((state.s - u - v).norm(dim=1).max()))
            moved.append(float((state.s - s).norm(dim=1).max()))
    return Course(v, split, moved)


@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("name", ["tied", "softplus"])
def test_admm_with_tied_converges_from_any_start(name: str, gamma: float, trained: Trained) -> None:
    y, mask = erased(trained.controls[:4])
    model = getattr(trained, name)
    course = admm(model, y, mask, gamma, steps=600)
    # lengths of 192 entries of up to a few units in float32: 2e-6 at rest, and 14 times what one entry is off
    assert course.split[0] > 0.1
    assert course.split[-1] < 2e-5
    # its step is firmly nonexpansive: no step is longer than the one before
    assert all(later <= earlier + 2e-5 for earlier, later in zip(course.moved, course.moved[1:], strict=False))
    start = 3 * torch.randn(4, 192, generator=torch.Generator().manual_seed(1))
    elsewhere = admm(model, y, mask, gamma, steps=600, start=start)
    torch.testing.assert_close(elsewhere.v, course.v, rtol=0, atol=1e-4)


@pytest.mark.parametrize("gamma", GAMMAS)
def test_the_limit_of_recover_is_the_optimum(gamma: float, trained: Trained) -> None:
    """0 ∈ Θ(x − y) + (γ/2) ∂s(x), which of f = prox of s is x = f(x + Θ(y − x)/(γ/2))."""
    y, mask = erased(trained.controls[:4])
    settings = mf.Settings(solver="paper", gamma=gamma, inner_iterations=600, restore_known_pixels=False)
    x = mf.recover(trained.tied, y, mask=mask, settings=settings).images
    with torch.inference_mode():
        again = trained.tied(x + mask * (y - x) / (gamma / 2))
    # what x is off by rounding comes 2/γ times as large
    torch.testing.assert_close(again, x, rtol=0, atol=1e-5 * max(1, 2 / gamma))
    assert (x - y)[mask].abs().max() > 1e-3  # a control is no fixed point: there is something to weigh up


@pytest.mark.parametrize("gamma", GAMMAS)
def test_the_limit_is_the_minimum_that_is_known_where_f_is_linear(gamma: float) -> None:
    """Of f(x) = WᵀWx = Ax, the minimum of ½‖Θx − y‖² + (γ/4) xᵀ(A⁻¹ − I)x over the range of A."""
    model = Tied(SHAPE, 64, "prelu").eval()
    nn.init.constant_(next(model.rho.parameters()), 50.0)  # a slope of 1
    y, mask = erased(open_photographs()[0][:1])
    with torch.no_grad():
        weight = model.weight.double()
    u, s, _ = torch.linalg.svd(weight.T, full_matrices=False)
    kept = u[mask.flatten()]
    penalty = torch.diag(gamma / 2 * (s**-2 - 1))
    x = u @ torch.linalg.solve(kept.T @ kept + penalty, kept.T @ y[mask].double())
    settings = mf.Settings(solver="paper", gamma=gamma, inner_iterations=1000, restore_known_pixels=False)
    found = mf.recover(model, y, mask=mask, settings=settings).images
    torch.testing.assert_close(found.flatten(), x.float(), rtol=0, atol=1e-4)


def test_admm_with_other_nets_of_the_same_size_need_not_converge(trained: Trained) -> None:
    y, mask = erased(trained.controls[:4])
    assert admm(trained.untied, y, mask, 0.1, steps=100).split[-1] > 1
    with torch.no_grad():
        larger = TiedLike(1.5 * trained.tied.weight, nn.LeakyReLU()).eval()
    for gamma in GAMMAS:
        assert admm(larger, y, mask, gamma, steps=20).split[-1] > 1


def test_an_eigenvalue_that_the_start_hardly_sees() -> None:
    d, outlier = 20_000, 1.0003
    direction = torch.zeros(d, dtype=torch.float64)
    direction[7] = 1

    def nearly_the_identity(images: Tensor) -> Tensor:
        return images + (outlier - 1) * (images @ direction)[:, None] * direction

    found = is_proximal(nearly_the_identity, torch.rand(1, d, dtype=torch.float64))
    assert not found
    assert float(found.largest) < 1 + 1e-6  # it is not found, and is not ruled out

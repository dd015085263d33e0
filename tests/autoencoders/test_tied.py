from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import memrecon_fast as mf
from memrecon_fast.autoencoders import Tied, build, evaluate, load, save, tied, train
from memrecon_fast.autoencoders.layers import ACTIVATIONS
from tests.helpers.memorised import open_photographs

SHAPE = (3, 4, 5)


def scaled(values: Tensor, factor: float) -> None:
    with torch.no_grad():
        values.mul_(factor)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("width", [1, 7, 60, 90])
def test_it_is_the_formula(activation: str, width: int) -> None:
    model = Tied(SHAPE, width, activation).eval()
    images = torch.rand(5, *SHAPE)
    before = images.clone()
    rho = {"leaky_relu": nn.LeakyReLU(0.01), "prelu": nn.PReLU(init=0.25), "softplus": nn.Softplus()}[activation]
    weight = model.weight
    assert weight.shape == (width, 60)
    answer = model(images)
    # sums of 60 and 90 products in float32
    torch.testing.assert_close(answer.flatten(1), rho(images.flatten(1) @ weight.T) @ weight, rtol=1e-5, atol=1e-6)
    assert answer.is_contiguous()
    assert torch.equal(images, before)
    assert model(images[:0]).shape == (0, *SHAPE)


@pytest.mark.parametrize("width", [1, 2, 35, 60, 90])
@pytest.mark.parametrize("scale", [0.0, 1e-3, 1.0, 1e3, 1e6, 1e30])
def test_singular_values_stay_within_0_and_1_whatever_the_parameters(width: int, scale: float) -> None:
    free = torch.randn(width, 60, generator=torch.Generator().manual_seed(0)) * scale
    free[0] = free[-1]  # of lower rank
    made = tied.constrained(free)
    # entries below 1 are rounded to float32: so many times 6e-8 at the very most, and here far less
    assert torch.linalg.matrix_norm(made.double(), 2) <= 1 + 2e-7
    assert made.isfinite().all()


def test_singular_values_are_those_of_the_docstring() -> None:
    free = torch.randn(6, 9, dtype=torch.float64) / 10
    s = torch.linalg.svdvals(10 * free)
    for one in (free, free.T):
        torch.testing.assert_close(torch.linalg.svdvals(tied.constrained(one)), s / (1 + s * s).sqrt())


def test_gradients_are_those_of_finite_differences() -> None:
    for shape in ((3, 5), (5, 3)):
        assert torch.autograd.gradcheck(tied.constrained, (torch.randn(shape, dtype=torch.float64).requires_grad_(),))
    zero = torch.zeros(3, 5, requires_grad=True)
    tied.constrained(zero).sum().backward()
    assert zero.grad is not None
    assert zero.grad.isfinite().all()


@pytest.mark.parametrize("slope", [-50.0, 50.0])
def test_slopes_of_prelu_stay_within_0_and_1(slope: float) -> None:
    model = Tied(SHAPE, 60, "prelu").eval()
    nn.init.constant_(next(model.rho.parameters()), slope)
    codes = model.rho(torch.tensor([-1.0, 2.0]))
    torch.testing.assert_close(codes, torch.tensor([-1.0 if slope > 0 else 0.0, 2.0]))


def test_nan_in_the_parameters_is_nan_in_the_answer() -> None:
    model = Tied(SHAPE, 7).eval()
    model.unconstrained.data[3, 3] = torch.nan
    with torch.inference_mode():
        assert model(torch.rand(2, *SHAPE)).isnan().all()


def by_data(model: Tied) -> None:
    model.unconstrained.data.mul_(3)


def by_numpy(model: Tied) -> None:
    model.unconstrained.detach().numpy()[:] *= 3


def by_place(model: Tied) -> None:
    scaled(model.unconstrained, 3)


def by_state_dict(model: Tied) -> None:
    model.load_state_dict({name: 3 * value for name, value in model.state_dict().items()})


def by_parameter(model: Tied) -> None:
    model.unconstrained = nn.Parameter(3 * model.unconstrained.detach())


def by_step(model: Tied) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    with torch.enable_grad():
        (-model.unconstrained.square().sum()).backward()  # V ← V + 2V
    optimizer.step()


@pytest.mark.parametrize("change", [by_data, by_numpy, by_place, by_state_dict, by_parameter, by_step])
def test_a_changed_parameter_is_never_stale(change: Callable[[Tied], None]) -> None:
    model, fresh = Tied(SHAPE, 7).eval(), Tied(SHAPE, 7).eval()
    images = torch.rand(4, *SHAPE)
    with torch.no_grad():
        before = model(images)
        change(model)
        scaled(fresh.unconstrained, 3)
        assert torch.equal(model(images), fresh(images))
        assert not torch.allclose(before, fresh(images), rtol=1e-3)


def test_in_eval_mode_it_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Tensor] = []
    real = tied.constrained

    def counted(free: Tensor) -> Tensor:
        made.append(free)
        return real(free)

    monkeypatch.setattr(tied, "constrained", counted)
    model = Tied(SHAPE, 7).eval()
    settings = mf.Settings(solver="paper", gamma=0.5, max_outer_iterations=3)
    mf.recover(model, torch.rand(4, *SHAPE) * mf.degradation.make_mask("half", SHAPE), settings=settings)
    assert len(made) == 1
    scaled(model.unconstrained, 2)
    with torch.no_grad():
        model(torch.rand(4, *SHAPE))
        model(torch.rand(4, *SHAPE))
        assert len(made) == 2
        nn.Sequential(model).eval()(torch.rand(4, *SHAPE))
    assert len(made) == 3


def test_what_was_kept_in_inference_mode_hides_no_gradient() -> None:
    model = Tied(SHAPE, 7, "softplus").eval()
    images = torch.rand(4, *SHAPE)
    with torch.inference_mode():
        model(images)
    model(images).square().sum().backward()
    gradient = model.unconstrained.grad
    assert gradient is not None
    assert gradient.any()
    model.requires_grad_(False)
    images.requires_grad_()
    model(images).sum().backward()
    assert images.grad is not None


def test_copies_and_other_number_formats() -> None:
    model = Tied(SHAPE, 7, "softplus").eval()
    images = torch.rand(4, *SHAPE)
    with torch.no_grad():
        answer = model(images)
        twin = copy.deepcopy(model)
        scaled(twin.unconstrained, 3)
        assert torch.equal(model(images), answer)
        assert not torch.allclose(twin(images), answer, rtol=1e-3)
        torch.testing.assert_close(copy.deepcopy(model).double()(images.double()).float(), answer)
        # 8 bits of mantissa
        torch.testing.assert_close(
            copy.deepcopy(model).bfloat16()(images.bfloat16()).float(), answer, rtol=0.05, atol=0.05
        )
        with torch.autocast("cpu", dtype=torch.bfloat16):  # made in it, W is that of float32
            assert torch.equal(Tied(SHAPE, 7, "softplus").eval().weight, model.weight)


def test_an_exported_one_answers_the_same() -> None:
    model, images = Tied(SHAPE, 7).eval(), torch.rand(4, *SHAPE)
    program = torch.export.export(model, (images,), dynamic_shapes=({0: torch.export.Dim("batch", min=2)},))
    torch.testing.assert_close(program.module()(images[:3]), model(images[:3]))


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_trained_one_comes_back_bit_for_bit_and_goes_on(activation: str, tmp_path: Path) -> None:
    images = open_photographs()[0][:5]
    model = build("tied", (3, 8, 8), activation=activation, width=20, seed=3)
    assert isinstance(model, Tied)
    whole = train(model, images, 1e-9, max_steps=30, save_every=10, checkpoint_folder=tmp_path / "first")
    save(model, tmp_path / "model.safetensors")
    loaded = load(tmp_path / "model.safetensors")
    assert isinstance(loaded, Tied)
    assert loaded.arguments() == model.arguments()
    with torch.inference_mode():
        assert torch.equal(loaded(images), model(images))
    assert torch.equal(loaded.weight, model.weight)
    again = build("tied", (3, 8, 8), activation=activation, width=20, seed=3)
    halfway = (evaluate(again, images) * whole.loss) ** 0.5
    begun = train(again, images, halfway, max_steps=30, save_every=10, checkpoint_folder=tmp_path / "again")
    assert 0 < begun.steps < 30
    train(again, images, 1e-9, max_steps=30, save_every=10, checkpoint_folder=tmp_path / "again", resume=True)
    assert all(torch.equal(a, b) for a, b in zip(again.state_dict().values(), model.state_dict().values(), strict=True))


def test_weights_depend_on_the_seed_alone() -> None:
    state = torch.get_rng_state()
    first = Tied(SHAPE, 7, seed=7).unconstrained
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first, Tied(SHAPE, 7, seed=7).unconstrained)
    assert not torch.equal(first, Tied(SHAPE, 7, seed=8).unconstrained)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((4, 4), 8), "image_shape must be"),
        (((1, 4, 4), 0), "width must be at least 1"),
        (((1, 4, 4), 8, "relu"), "activation must be one of 'leaky_relu', 'prelu', 'softplus'"),
    ],
)
def test_refuses_arguments_out_of_range(arguments: tuple[tuple[int, ...], int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Tied(*arguments)

"""Products with the Jacobian against dense ones, and models that are not differentiable."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import memrecon_fast as mf
from memrecon_fast.attractors.jacobian import make_jacobian
from memrecon_fast.engine.transfer import working_on
from tests.helpers.memorised import Memorised

CPU = torch.device("cpu")
IMAGES = torch.rand(3, 2, 4, 4, generator=torch.Generator().manual_seed(5))


def seeded(make: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(7)
    return make().eval()


MODELS: dict[str, Callable[[], nn.Module]] = {
    "fully connected": lambda: mf.autoencoders.FullyConnected((2, 4, 4), 24, 3, "prelu"),
    "softplus": lambda: mf.autoencoders.FullyConnected((2, 4, 4), 24, 3, "softplus"),
    "convolutions": lambda: nn.Sequential(
        nn.Conv2d(2, 5, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(5, 2, 3, padding=1)
    ),
    "U-Net": lambda: mf.autoencoders.UNet((2, 4, 4), (4, 8), "prelu"),
    "batch norm, sigmoid": lambda: nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1), nn.Sigmoid()
    ),
}


@pytest.mark.parametrize("name", list(MODELS))
def test_products_are_those_of_the_dense_jacobian(name: str) -> None:
    model = seeded(MODELS[name])
    jacobian = make_jacobian(model, (2, 4, 4), CPU)
    dense = torch.stack(
        [torch.autograd.functional.jacobian(lambda x: model(x[None])[0], image).view(32, 32) for image in IMAGES]
    )
    v = torch.randn(3, *IMAGES.shape[1:], generator=torch.Generator().manual_seed(1))
    with working_on(CPU):
        here = jacobian.at(jacobian.prox.to_rows(IMAGES))
        products = jacobian.prox.to_images(here.times(jacobian.prox.to_rows(v)))
        transposed = jacobian.prox.to_images(here.transposed(jacobian.prox.to_rows(v)))
        value = jacobian.prox.to_images(here.value)
    torch.testing.assert_close(products.flatten(1), torch.einsum("nij,nj->ni", dense, v.flatten(1)))
    torch.testing.assert_close(transposed.flatten(1), torch.einsum("nij,ni->nj", dense, v.flatten(1)))
    torch.testing.assert_close(value, model(IMAGES).detach())


def test_switches_of_torch_and_weights_stay_as_they_are(memorised: Memorised) -> None:
    for parameter in memorised.autoencoder.parameters():
        assert parameter.grad is None
    with torch.no_grad():
        mf.attractors.spectra(memorised.autoencoder, memorised.members[:2], k=1)
        assert not torch.is_grad_enabled()
    assert all(parameter.grad is None and parameter.requires_grad for parameter in memorised.autoencoder.parameters())
    frozen = seeded(MODELS["fully connected"]).requires_grad_(False)
    assert mf.attractors.spectra(frozen, IMAGES, k=1).found.all()


class Codebook(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return (images * 7).round() / 7


class Halved(nn.Module):
    """An encoder that was frozen by no_grad."""

    def __init__(self) -> None:
        super().__init__()
        self.inner: Callable[[Tensor], Tensor] = MODELS["convolutions"]()

    def forward(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            code = images * 0.9
        return 0.01 * images + self.inner(code) + code


def by_numpy(images: Tensor) -> Tensor:
    return torch.from_numpy(images.detach().cpu().numpy() * 0.5)


@pytest.mark.parametrize("model", [Codebook().eval(), seeded(Halved), by_numpy, lambda x: 0.5 * x.detach()])
def test_what_is_not_differentiable_is_refused(model: Callable[[Tensor], Tensor]) -> None:
    with pytest.raises(ValueError, match="gradients are not those of the function"):
        mf.attractors.stability(model, IMAGES)


def test_a_function_without_a_second_derivative_is_refused() -> None:
    class Once(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, x: Tensor) -> Tensor:
            return x * 0.5

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx: object, gradient: Tensor) -> Tensor:
            return gradient * 0.5

    with pytest.raises(ValueError, match="has no second derivative"):
        mf.attractors.spectra(lambda x: Once.apply(x), IMAGES)  # type: ignore[no-untyped-call]


def test_a_constant_is_differentiable() -> None:
    level = torch.full((2, 4, 4), 0.5)
    found = mf.attractors.spectra(lambda x: level.expand(len(x), -1, -1, -1).clone(), IMAGES)
    assert (found.values[:, 0] == 0).all()
    assert (found.found == 1).all()

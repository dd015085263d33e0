"""Eigenvalues and singular values of Jacobians against dense ones; bad input."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import memrecon_fast as mf
from memrecon_fast.attractors.flight import LOOKS
from tests.attractors.test_jacobian import IMAGES, MODELS, seeded
from tests.helpers.memorised import Memorised


def dense_jacobian(model: nn.Module, images: Tensor) -> Tensor:
    """Of all images in one batch. One by one they may be rounded to the other side of a kink: training images of
    piecewise linear nets lie at kinks, and there their Jacobians differ by up to a fifth."""
    x = images.clone().requires_grad_()
    output = model(x).flatten(1)
    rows = [torch.autograd.grad(output[:, i].sum(), x, retain_graph=True)[0].flatten(1) for i in range(output.shape[1])]
    return torch.stack(rows, dim=1)


def dense_moduli(model: nn.Module, images: Tensor) -> Tensor:
    values: Tensor = torch.linalg.eigvals(dense_jacobian(model, images).double())
    return values.abs().sort(dim=1, descending=True).values


@pytest.mark.parametrize("name", list(MODELS))
def test_moduli_are_those_of_the_dense_jacobian(name: str) -> None:
    model = seeded(MODELS[name])
    found = mf.attractors.spectra(model, IMAGES, k=6, tolerance=1e-4)
    assert (found.found == 6).all()
    # a residual of 1e-4 bounds the error where eigenvectors are not nearly parallel
    torch.testing.assert_close(found.values.abs().double(), dense_moduli(model, IMAGES)[:, :6], atol=1e-3, rtol=0)


def test_a_memorising_net(memorised: Memorised) -> None:
    found = mf.attractors.spectra(memorised.autoencoder, memorised.members)
    moduli = dense_moduli(memorised.autoencoder, memorised.members)
    torch.testing.assert_close(found.values.abs().double(), moduli[:, :6], atol=1e-3, rtol=0)
    torch.testing.assert_close(found.radius.double(), moduli[:, 0], atol=1e-3, rtol=0)
    assert (found.residuals < 1e-4).all()
    assert found.products.double().mean() <= 20  # these spectra decay fast
    assert "16 images" in repr(found)


def test_singular_values_of_a_memorising_net(memorised: Memorised) -> None:
    found = mf.attractors.singular_values(memorised.autoencoder, memorised.members)
    dense = torch.linalg.svdvals(dense_jacobian(memorised.autoencoder, memorised.members).double())
    torch.testing.assert_close(found.values.double(), dense[:, :6], atol=1e-4, rtol=1e-4)
    assert (found.found == 6).all()


def test_the_bottleneck_has_the_same_eigenvalues(memorised: Memorised) -> None:
    model = memorised.autoencoder
    assert isinstance(model, nn.Sequential)
    whole = mf.attractors.spectra(model, memorised.members)
    halves = mf.attractors.spectra(model, memorised.members, encoder=model[:4], decoder=model[4:])
    torch.testing.assert_close(halves.values.abs(), whole.values.abs(), atol=1e-3, rtol=0)
    with pytest.raises(ValueError, match="not the two halves"):
        mf.attractors.spectra(model, memorised.members, encoder=model[:4], decoder=model[5:])
    with pytest.raises(ValueError, match="encoder and decoder go together"):
        mf.attractors.spectra(model, memorised.members, encoder=model[:4])


def slow_spectrum(images: Tensor) -> Tensor:
    """Linear, with 200 eigenvalues from 0.5 to 0.99: many products, how many depends on the tolerance."""
    return images * torch.linspace(0.5, 0.99, 200).view(1, 8, 25)


def test_batches_change_nothing_but_the_last_bits(memorised: Memorised) -> None:
    """However many images there are at a time, and whoever waits for whom."""
    whole = mf.attractors.spectra(memorised.autoencoder, memorised.members)
    for rows in (1, 3, 16, 100):
        found = mf.attractors.spectra(memorised.autoencoder, memorised.members, rows=rows)
        torch.testing.assert_close(found.values.abs(), whole.values.abs(), atol=2e-6, rtol=0)
        assert torch.equal(found.products, whole.products)


def test_what_is_not_found_is_not_called_found() -> None:
    images = torch.rand(3, 8, 25)
    found = mf.attractors.spectra(slow_spectrum, images, k=6, tolerance=1e-6)
    assert (found.products == LOOKS[-1]).all()
    assert (found.found < 6).all()
    assert (found.residuals[:, 5] >= 1e-6).all()
    easy = mf.attractors.spectra(slow_spectrum, images, k=1, tolerance=1e-2)
    assert (easy.found == 1).all()
    assert (easy.products < LOOKS[-1]).all()
    assert (easy.radius - 0.99).abs().max() < 1e-2


def test_images_that_are_done_leave_and_the_others_go_on() -> None:
    """Half of the images see a map with one eigenvalue, the others a slow spectrum."""

    def mixed(images: Tensor) -> Tensor:
        bright = images.flatten(1).mean(dim=1).view(-1, 1, 1) > 0.5
        return torch.where(bright, 0.25 * images, slow_spectrum(images))

    images = torch.cat([torch.full((5, 8, 25), 0.9), torch.full((5, 8, 25), 0.1)])[[0, 5, 1, 6, 2, 7, 3, 8, 4, 9]]
    found = mf.attractors.spectra(mixed, images, k=2, tolerance=1e-3, rows=4)
    assert (found.found[::2] == 1).all()
    assert (found.found[1::2] == 2).all()
    torch.testing.assert_close(found.radius[::2], torch.full((5,), 0.25))
    assert (found.products[::2] == LOOKS[0]).all()
    assert (found.products[1::2] > LOOKS[0]).all()
    torch.testing.assert_close(found.values[1], found.values[9], atol=1e-5, rtol=0)


def test_the_identity_has_one_eigenvalue() -> None:
    found = mf.attractors.spectra(lambda x: x * 1.0, IMAGES)
    assert (found.values[:, 0] == 1).all()
    assert found.values[:, 1:].isnan().all()
    assert (found.found == 1).all()


def test_one_pixel_one_image_and_none() -> None:
    found = mf.attractors.spectra(lambda x: 0.5 * x, torch.full((1, 1), 0.3))
    assert found.values[0, 0] == 0.5
    assert found.found == 1
    assert found.radius == 0.5
    assert mf.attractors.spectra(lambda x: 0.5 * x, torch.zeros(0, 1)).values.shape == (0, 6)


def test_a_jacobian_that_is_not_finite_is_unknown() -> None:
    def root(images: Tensor) -> Tensor:
        return images.abs().sqrt()  # infinitely steep at 0

    found = mf.attractors.spectra(root, torch.cat([torch.zeros(1, 1, 4, 4), torch.full((1, 1, 4, 4), 0.25)]))
    assert found.found.tolist() == [0, 1]
    assert found.radius[0].isnan()
    assert found.radius[1] == 1.0


@pytest.mark.parametrize(
    ("images", "options", "error", "message"),
    [
        ((255 * IMAGES).to(torch.uint8), {}, TypeError, r"images must be float32.*uint8.*images.float\(\) / 255"),
        (IMAGES.double(), {}, TypeError, "images must be float32"),
        (IMAGES.numpy(), {}, TypeError, "images must be a torch tensor"),
        (IMAGES * 255, {}, ValueError, r"images must have pixels in \[0, 1\]"),
        (IMAGES * torch.nan, {}, ValueError, "NaN or infinite pixels, first in image 0"),
        (IMAGES[0, 0, 0], {}, ValueError, "must be a batch"),
        (IMAGES, {"k": 0}, ValueError, "k must be at least 1"),
        (IMAGES, {"k": 33}, ValueError, "at most 32"),
        (IMAGES, {"tolerance": 0}, ValueError, "tolerance must be finite and above 0"),
        (IMAGES, {"rows": 0}, ValueError, "rows must be at least 1"),
    ],
)
def test_bad_input_is_refused(images: Any, options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        mf.attractors.spectra(seeded(MODELS["fully connected"]), images, **options)


def test_models_that_do_not_do_are_refused() -> None:
    model = seeded(MODELS["fully connected"])
    for wrong, error, message in (
        (model.half(), TypeError, "autoencoder must be float32"),
        (seeded(MODELS["fully connected"]).train(), ValueError, "training mode"),
        (lambda x: x + torch.randn_like(x), ValueError, "answers differently to the same images"),
        (lambda x: x[:, :1], ValueError, "shape"),
    ):
        with pytest.raises(error, match=message):
            mf.attractors.spectra(wrong, IMAGES)


def test_a_model_that_changes_is_noticed() -> None:
    calls = 0

    def drifting(images: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return images * (0.5 if calls < 20 else 0.7)

    with pytest.warns(RuntimeWarning, match="the result is in doubt"):
        mf.attractors.stability(drifting, IMAGES)

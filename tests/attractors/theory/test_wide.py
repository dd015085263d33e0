from __future__ import annotations

import torch

from memrecon_fast.attractors.theory import linear, wide


def test_training_images_are_marginal_however_wide_the_layer_is() -> None:
    """Homogeneity: J(x) x = f(x) = x. The other eigenvalues fall with the width."""
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(1, 12, dtype=torch.float64, generator=generator)
    second = []
    for width in (100, 10_000):
        hidden = torch.randn(width, 12, dtype=torch.float64, generator=generator)
        last = wide.last_layer(hidden, image)
        matrix = wide.jacobian(last, hidden, image[0])
        torch.testing.assert_close(matrix @ image[0], image[0], rtol=0, atol=1e-10)
        values = linear.spectrum(matrix).abs()
        assert abs(values[0].item() - 1) < 1e-10
        second.append(values[1].item())
    assert second[1] < 1e-10  # one image: of rank one, whatever the width is
    assert linear.rank(matrix) == 1


def test_several_images_have_the_eigenvalue_one_each() -> None:
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(3, 12, dtype=torch.float64, generator=generator)
    hidden = torch.randn(400, 12, dtype=torch.float64, generator=generator)
    last = wide.last_layer(hidden, images)
    torch.testing.assert_close((images @ hidden.T).relu() @ last.T, images, rtol=0, atol=1e-9)
    for image in images:
        matrix = wide.jacobian(last, hidden, image)
        torch.testing.assert_close(matrix @ image, image, rtol=0, atol=1e-9)
        assert (linear.spectrum(matrix) - 1).abs().min() < 1e-8

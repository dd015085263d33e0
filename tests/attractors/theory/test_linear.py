from __future__ import annotations

import pytest
import torch
from torch import nn

from memrecon_fast.attractors.theory import linear

NINE = torch.arange(1.0, 10).view(1, 1, 3, 3)


def test_the_matrix_of_one_filter() -> None:
    matrix = linear.convolution_matrix(NINE, (3, 3))
    assert matrix.shape == (9, 9)
    assert int((matrix != 0).sum()) == 49  # (3s − 2)²
    assert matrix[0].tolist() == [5, 6, 0, 8, 9, 0, 0, 0, 0]
    assert torch.linalg.det(matrix).item() == pytest.approx(-95795, abs=1e-6)
    values = linear.spectrum(matrix)
    real = torch.tensor([25.235, 12.3447, 10.3367, 5.2313, -3.931, -2.2826, -1.2025], dtype=torch.float64)
    torch.testing.assert_close(values[:7].real, real, rtol=0, atol=5e-4)
    assert values[:7].imag.abs().max() < 1e-9
    assert {round(value, 4) for value in values[7:].imag.tolist()} == {0.6271, -0.6271}
    assert values[7:].real.tolist() == pytest.approx([-0.3658, -0.3658], abs=5e-5)


def test_the_rank_of_a_filter_of_ones() -> None:
    """(1 + 2cos(πj/(s+1)))(1 + 2cos(πk/(s+1))) are its eigenvalues: some are 0 where 3 divides s + 1."""
    ones = torch.ones(1, 1, 3, 3)
    assert [linear.rank(linear.convolution_matrix(ones, (s, s))) for s in (2, 3, 4, 5)] == [1, 9, 16, 16]


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("padding", [0, 1, 2])
@pytest.mark.parametrize("kernel", [1, 3, 4])
def test_convolutions_are_those_of_torch(stride: int, padding: int, kernel: int) -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(3, 2, kernel, kernel, dtype=torch.float64, generator=generator)
    image = torch.randn(1, 2, 5, 7, dtype=torch.float64, generator=generator)
    found = linear.convolution_matrix(weight, (5, 7), stride, padding) @ image.flatten()
    expected = nn.functional.conv2d(image, weight, stride=stride, padding=padding).flatten()
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_upsampling() -> None:
    matrix = linear.upsampling_matrix(1, (2, 2), 2)
    assert matrix.shape == (16, 4)
    assert torch.equal(matrix.T @ matrix, 4 * torch.eye(4, dtype=torch.float64))
    image = torch.randn(1, 3, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = nn.functional.interpolate(image, scale_factor=3, mode="nearest").flatten()
    assert torch.equal(linear.upsampling_matrix(3, (2, 3), 3) @ image.flatten(), expected)


def test_the_matrix_of_a_net_is_the_product_of_those_of_its_layers() -> None:
    torch.manual_seed(0)
    down = nn.Conv2d(2, 4, 3, stride=2, padding=1, bias=False, dtype=torch.float64)
    up = nn.Conv2d(4, 2, 3, padding=1, bias=False, dtype=torch.float64)
    net = nn.Sequential(down, nn.Upsample(scale_factor=2, mode="nearest"), up)
    first = linear.convolution_matrix(down.weight.detach(), (4, 4), stride=2)
    last = linear.convolution_matrix(up.weight.detach(), (4, 4))
    expected = last @ linear.upsampling_matrix(4, (2, 2), 2) @ first
    torch.testing.assert_close(linear.matrix_of(net, (2, 4, 4)), expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(linear.matrix_of(net.float(), (2, 4, 4)), expected, rtol=0, atol=1e-5)
    assert linear.matrix_of(lambda images: 2 * images, (1, 2, 2)).equal(2 * torch.eye(4, dtype=torch.float64))


@pytest.mark.parametrize(
    "net", [nn.Conv2d(1, 1, 3, padding=1), nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.ReLU())]
)
def test_what_is_not_linear_has_no_matrix(net: nn.Module) -> None:
    with pytest.raises(ValueError, match="not linear"):
        linear.matrix_of(net, (1, 3, 3))


@pytest.mark.parametrize("size", [2, 3, 4, 5, 6])
def test_one_filter_of_one_layer_learns_full_rank(size: int) -> None:
    """Theorem 4; beyond 3×3 there are more pixels than weights, and the identity is all that fits."""
    image = torch.rand(size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(size))
    weights = linear.learned_filter(image)
    matrix = linear.convolution_matrix(weights, (size, size))
    torch.testing.assert_close(matrix @ image.flatten(), image.flatten(), rtol=0, atol=1e-10)
    assert linear.rank(matrix) == size**2
    if size > 3:
        torch.testing.assert_close(matrix, torch.eye(size**2, dtype=torch.float64), rtol=0, atol=1e-9)


def test_gradient_descent_learns_this_filter() -> None:
    image = torch.rand(2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    weights = torch.zeros(1, 1, 3, 3, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.SGD([weights], lr=0.3)
    for _ in range(1000):
        optimizer.zero_grad()
        (nn.functional.conv2d(image[None, None], weights, padding=1) - image).square().sum().mul(0.5).backward()
        optimizer.step()
    torch.testing.assert_close(weights.detach(), linear.learned_filter(image), rtol=0, atol=1e-6)


@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("size", [2, 3, 4, 5, 6])
def test_so_many_layers_have_no_forced_zero(size: int, kernel: int) -> None:
    least = linear.least_layers(size, kernel)
    assert kernel != 3 or least == size - 1
    assert linear.forced_zeros(size, least, kernel) == 0
    assert least == 1 or linear.forced_zeros(size, least - 1, kernel) > 0


def test_heuristic_depths() -> None:
    assert [linear.heuristic_layers(s) for s in range(2, 8)] == [2, 9, 29, 70, 144, 267]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: linear.convolution_matrix(torch.ones(3, 3), (3, 3)), r"must be \(out, in, k, k\)"),
        (lambda: linear.convolution_matrix(torch.ones(1, 1, 5, 5), (2, 2), padding=0), "does not fit images of 2×2"),
        (lambda: linear.least_layers(4, 2), "kernel must be odd"),
    ],
)
def test_wrong_arguments(wrong: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        wrong()  # type: ignore[operator]

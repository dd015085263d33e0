"""Linear convolutional autoencoders as matrices: Theorems 4 and 5, Appendices D, E and F of the paper.

Images (C, H, W) are vectors of C·H·W entries, in this order. Kernels are square.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from memrecon_fast.common.checks import check_integer

_ROUNDING = 1e4
"""What is linear may differ by so many times the rounding of its number format, relative to its size."""


def convolution_matrix(weight: Tensor, size: tuple[int, int], stride: int = 1, padding: int | None = None) -> Tensor:
    """The matrix of a convolution without a bias, Algorithm 1 of Appendix E: float64 (O·H′·W′, C·H·W).

    weight: (O, C, k, k), as `torch.nn.Conv2d` has it. size: (H, W) of the images that it is given. padding: zeros
    around them, by default (k − 1) / 2, which keeps the size where the stride is 1.
    H′ = (H + 2·padding − k) // stride + 1.

    Wherever a pixel of the output does not see a pixel of the input there is a 0 in the matrix, whatever the weights
    are: the forced zeros of the paper's lemma, see `forced_zeros`.
    """
    if weight.ndim != 4 or weight.shape[2] != weight.shape[3]:
        raise ValueError(f"weight must be (out, in, k, k), not of shape {tuple(weight.shape)}")
    outputs, channels, kernel, _ = weight.shape
    padding = (kernel - 1) // 2 if padding is None else padding
    check_integer("stride", stride, low=1)
    check_integer("padding", padding, low=0)
    height, width = size
    rows, columns = ((side + 2 * padding - kernel) // stride + 1 for side in size)
    if min(rows, columns) < 1:
        raise ValueError(
            f"a kernel of {kernel}×{kernel} does not fit images of {height}×{width} with padding {padding}"
        )
    matrix = torch.zeros(outputs, rows, columns, channels, height, width, dtype=torch.float64)
    down, across = torch.arange(rows), torch.arange(columns)
    for a in range(kernel):
        for b in range(kernel):
            i, j = stride * down + a - padding, stride * across + b - padding
            seen_down, seen_across = (i >= 0) & (i < height), (j >= 0) & (j < width)
            y, x = torch.meshgrid(down[seen_down], across[seen_across], indexing="ij")
            seen_y, seen_x = torch.meshgrid(i[seen_down], j[seen_across], indexing="ij")
            matrix[:, y, x, :, seen_y, seen_x] = weight[:, :, a, b].double()
    return matrix.view(outputs * rows * columns, channels * height * width)


def upsampling_matrix(channels: int, size: tuple[int, int], scale: int) -> Tensor:
    """The matrix of nearest-neighbour upsampling, Algorithm 2 of Appendix E: float64 (C·sH·sW, C·H·W). UᵀU = s² I."""
    check_integer("channels", channels, low=1)
    check_integer("scale", scale, low=1)
    down, across = (torch.eye(side, dtype=torch.float64).repeat_interleave(scale, dim=0) for side in size)
    return torch.kron(torch.eye(channels, dtype=torch.float64), torch.kron(down, across))


def matrix_of(network: Callable[[Tensor], Tensor], image_shape: Sequence[int]) -> Tensor:
    """The matrix of a linear network, float64 (entries of the output, d): its values at the d unit images.

    network: images (B, *image_shape) → (B, …), linear, without biases; an nn.Module in any floating-point format.

    Raises ValueError where it is not linear, which is tried on two images.
    """
    entries = math.prod(image_shape)
    parameter = next(network.parameters(), None) if isinstance(network, nn.Module) else None
    kind = torch.float64 if parameter is None else parameter.dtype
    units = torch.eye(entries, dtype=kind).view(entries, *image_shape)
    generator = torch.Generator().manual_seed(0)
    tried = torch.randn(2, *image_shape, dtype=kind, generator=generator)
    with torch.no_grad():
        matrix = network(units).reshape(entries, -1).T.double()
        found = network(tried).reshape(2, -1).double()
    expected = tried.reshape(2, -1).double() @ matrix.T
    if not (found - expected).norm() <= _ROUNDING * torch.finfo(kind).eps * (found.norm() + matrix.norm()):
        raise ValueError("the network is not linear: it has a nonlinearity or a bias, and no matrix")
    return matrix


def spectrum(matrix: Tensor) -> Tensor:
    """The eigenvalues of a square matrix, complex128, by falling modulus."""
    values: Tensor = torch.linalg.eigvals(matrix.to(torch.float64))
    return values[values.abs().argsort(descending=True, stable=True)]


def rank(matrix: Tensor, tolerance: float = 1e-10) -> int:
    """How many singular values are above `tolerance` times the largest."""
    values = torch.linalg.svdvals(matrix.double())
    return int((values > tolerance * values[0]).sum())


def learned_filter(image: Tensor, kernel: int = 3) -> Tensor:
    """Theorem 4: the one filter (1, 1, k, k), float64, that gradient descent from 0 learns from one image (s, s).

    One convolution with zero padding is linear in its k² weights: each pixel is an equation for them, with the pixels
    around it, and descent from 0 comes to the solution of minimum norm. Its matrix has the rank s²: where s > k, the
    only solution is in general the identity; nothing is memorised.
    """
    check_integer("kernel", kernel, low=1)
    x = image.double()
    around = nn.functional.unfold(x[None, None], kernel, padding=(kernel - 1) // 2)[0]  # (k², s²)
    weights: Tensor = torch.linalg.pinv(around.T) @ x.flatten()
    return weights.view(1, 1, kernel, kernel)


def forced_zeros(size: int, layers: int, kernel: int = 3) -> int:
    """So many entries of the s² × s² matrix of `layers` convolutions (padding that keeps the size) are 0 whatever their
    filters are: the paper's lemma says that such a net cannot memorise.
    """
    check_integer("layers", layers, low=1)
    seen = convolution_matrix(torch.ones(1, 1, kernel, kernel), (size, size)) > 0
    reached = seen
    for _ in range(layers - 1):
        reached = (reached.double() @ seen.double()) > 0
    return int((~reached).sum())


def least_layers(size: int, kernel: int = 3) -> int:
    """Theorem 5: below so many convolutions of s × s images there are forced zeros, and nothing is memorised, however
    many filters there are; s − 1 with 3 × 3 kernels: each layer carries a pixel (k − 1) / 2 further."""
    check_integer("size", size, low=1)
    if kernel < 3 or kernel % 2 == 0:
        raise ValueError(f"kernel must be odd and at least 3, not {kernel!r}")
    return max(1, math.ceil((size - 1) / ((kernel - 1) // 2)))


def heuristic_layers(size: int, kernel: int = 3) -> int:
    """Appendix F: with one filter a layer, so many layers have as many parameters as a fully connected one, ⌈s⁴/k²⌉."""
    check_integer("size", size, low=1)
    check_integer("kernel", kernel, low=1)
    return -(-(size**4) // kernel**2)

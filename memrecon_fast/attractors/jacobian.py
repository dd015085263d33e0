"""The autoencoder as a differentiable map: products with its Jacobian, image by image, many images at a time.

Images do not know of each other, so one product of the batch is the products of all its images. J v comes by backward
passes alone: g(w) = Jᵀw is linear in w, and J v = (∂g/∂w)ᵀ v. A forward-mode product is several times as dear.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from memrecon_fast.common.errors import is_out_of_memory, note_autoencoder, one_line
from memrecon_fast.common.typing import Autoencoder
from memrecon_fast.engine.function import private_randomness, trial_images
from memrecon_fast.engine.prox import Prox, make_prox
from memrecon_fast.engine.transfer import differentiating_on, working_on

_TRIAL_ROWS = 4
_STEPS = (3e-2, 3e-3, 3e-4)
"""Of the finite differences: root mean square over the pixels."""
_NEAR = 0.5
"""A product counts as wrong where it is off by more than this share of its size, at every image and with every step:
kinks and roundings cost less, a part of f that is cut off from the gradient costs more."""


class Jacobian:
    """f and its Jacobian J on rows [rows, d], float32."""

    def __init__(self, prox: Prox) -> None:
        self.prox = prox

    def at(self, rows: Tensor) -> Linearisation:
        """f near these rows [rows, d]: one forward and one backward pass. Raises ValueError where autograd fails."""
        prox = self.prox
        return Linearisation(lambda x: prox.to_rows(prox.call(prox.as_images(x))).float(), prox, rows)


class Linearisation:
    """A function of rows, near some of them: products with its Jacobian J. It keeps the graphs of a forward and a
    backward pass in memory.

    function: float32 [n, entries] → [n, other entries], row by row. prox: says where to work, and how many rows to give
    it. Raises ValueError where autograd fails.
    """

    def __init__(self, function: Callable[[Tensor], Tensor], prox: Prox, rows: Tensor) -> None:
        self._device, self._count = prox.device, len(rows)
        with differentiating_on(prox.device):
            x = torch.zeros(prox.fitting_rows(len(rows)), rows.shape[1], dtype=torch.float32, device=prox.device)
            x[: len(rows)] = rows
            x.requires_grad_()
            try:
                value = function(x)
                weights = torch.zeros_like(value, requires_grad=True)
                pulled = _gradient(value, x, weights, create_graph=True)
            except Exception as error:
                if is_out_of_memory(error):
                    raise
                raise ValueError(
                    f"autoencoder is not differentiable: {one_line(error)}. Usual causes: in-place changes inside, "
                    f"weights made in inference mode, operations without a (second) derivative"
                ) from error
        self._x, self._output, self._weights = x, value, weights
        self._pulled = pulled
        """Jᵀ · weights; None where the function does not depend on its input."""

    @property
    def value(self) -> Tensor:
        """The function of the rows."""
        return self._output.detach()[: self._count]

    def times(self, v: Tensor) -> Tensor:
        """J v of each row: [rows, entries] → [rows, other entries]."""
        return self._product(self._pulled, self._weights, v)

    def transposed(self, v: Tensor) -> Tensor:
        """Jᵀ v of each row: [rows, other entries] → [rows, entries]."""
        return self._product(self._output, self._x, v)

    def _product(self, output: Tensor | None, of: Tensor, v: Tensor) -> Tensor:
        with differentiating_on(self._device):
            if len(v) < len(of):
                v = torch.cat([v, v.new_zeros(len(of) - len(v), v.shape[1])])
            found = _gradient(output, of, v, retain_graph=True)
        return torch.zeros_like(of[: self._count]) if found is None else found.detach()[: self._count]


def make_jacobian(autoencoder: Autoencoder, image_shape: Sequence[int], device: torch.device) -> Jacobian:
    """The Jacobian of an autoencoder, tried on a few images before any work starts.

    Raises TypeError or ValueError as `recover` where the autoencoder does not do, and where it is not differentiable:
    no gradient reaches the input, or the gradients are not those of the function, as finite differences see it.
    """
    jacobian = Jacobian(make_prox(autoencoder, image_shape, device))
    with private_randomness(device):
        _check_products(jacobian)
    return jacobian


def _check_products(jacobian: Jacobian) -> None:
    """Raise ValueError where J v is far from (f(x + hv) − f(x − hv))/2h at every one of a few images."""
    prox = jacobian.prox
    count = min(_TRIAL_ROWS, prox.most_rows)
    rows = prox.to_rows(trial_images(count, prox.image_shape).to(prox.device))
    generator = torch.Generator("cpu").manual_seed(2)
    directions = torch.randn(rows.shape, generator=generator, dtype=torch.float32, device="cpu").to(prox.device)
    directions /= directions.square().mean(dim=1, keepdim=True).sqrt()
    products = jacobian.at(rows).times(directions)
    right = torch.zeros(count, dtype=torch.bool, device=prox.device)
    flat = torch.ones_like(right)
    with working_on(prox.device):
        for step in _STEPS:
            ahead, behind = prox(rows + step * directions), prox(rows - step * directions)
            slopes = (ahead - behind) / (2 * step)
            size = slopes.norm(dim=1)
            rounding = torch.finfo(torch.float32).eps * (ahead.norm(dim=1) + 1) / step
            agrees = (products - slopes).norm(dim=1) <= _NEAR * size + rounding
            right |= (agrees & (size > 0)) | ~size.isfinite()  # a small step finds what rounds flat as well
            flat &= size == 0
    right |= flat & (products == 0).all(dim=1)
    if not right[~flat if not flat.all() else flat].any():
        raise ValueError(
            "autoencoder's gradients are not those of the function that it computes (finite differences say otherwise "
            "at every image that was tried): it, or a part of it, is cut off from them, by .detach(), torch.no_grad() "
            "or .numpy(), has no second derivative in autograd, or rounds, as a codebook does. What rests on its "
            "Jacobian would be wrong"
        )


def _gradient(output: Tensor | None, of: Tensor, weights: Tensor, **options: bool) -> Tensor | None:
    """The product of `weights` with the derivative of the output; None where it does not depend on `of`."""
    if output is None or not output.requires_grad:
        return None
    try:
        (found,) = torch.autograd.grad(output, of, weights, allow_unused=True, **options)
    except Exception as error:
        note_autoencoder(error)
        raise
    return found

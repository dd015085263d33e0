"""Is an autoencoder a Moreau proximity operator, as far as its Jacobian at some images tells?"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from memrecon_fast.common.checks import check_number
from memrecon_fast.common.errors import is_out_of_memory, one_line
from memrecon_fast.common.typing import Autoencoder
from memrecon_fast.engine.precision import allow_tf32, as_usual

_MOST_EXACT = 1024
"""Entries of an image: with more of them the Jacobian is not computed as a whole."""
_ROWS = 128
"""Of the Jacobian at a time."""
_PROBES = 16
"""Random vectors that the asymmetry is estimated with, to about a quarter of itself; better as its rank is higher."""
_MOST_STEPS = 300
"""Of Lanczos' iteration."""
_LOOK_EVERY = 10
_EXHAUSTED = 1e-6
"""What is left of a product after orthogonalisation, relative to it, where the space has no more: its rounding."""
_STEPS = (3e-2, 3e-3, 3e-4)
_NEAR = 0.1
"""A gradient counts as wrong where it is off by more than this share, against finite differences of each of these steps
(root mean square over the pixels): kinks and roundings cost less."""
_TOLD = 4
"""A finite difference shows something where it is so many times its rounding."""
_ALONE = 1e-4
"""So much may an answer depend on the other images of the batch, by rounding."""

_Rows = Callable[[Tensor], Tensor]
"""f on rows [n, d] → the same."""


@dataclasses.dataclass(frozen=True, repr=False)
class Proximality:
    """Of the Jacobian J at each of B images, how far it is from that of a proximity operator; float64, on the CPU."""

    asymmetry: Tensor
    """(B,): ‖J − Jᵀ‖/‖J‖, Frobenius norms, 0 to 2; 0 where J is 0."""
    smallest: Tensor
    """(B,): the smallest eigenvalue of (J + Jᵀ)/2."""
    largest: Tensor
    """(B,): the largest one."""
    error: Tensor
    """(B,): how far these two may be off, inside of what was found; 0 where all of J was computed."""
    tolerance: float

    @property
    def proximal(self) -> Tensor:
        """bool (B,): whether J was shown to be symmetric with eigenvalues in [0, 1] there, to within the tolerance."""
        symmetric = self.asymmetry <= self.tolerance
        low, high = self.smallest - self.error, self.largest + self.error
        return symmetric & (low >= -self.tolerance) & (high <= 1 + self.tolerance)

    @property
    def verdict(self) -> bool:
        """Whether it was at all of these images."""
        return bool(self.proximal.all())

    def __bool__(self) -> bool:
        return self.verdict

    def __repr__(self) -> str:
        found = int(self.proximal.sum())
        error = f" ± {self.error.max():.1g}" if self.error.any() else ""
        return (
            f"Proximality: {'yes' if self.verdict else 'no'}, at {found} of {len(self.proximal)} images\n"
            f"  asymmetry: at most {self.asymmetry.max():.3g}\n"
            f"  eigenvalues: {self.smallest.min():.6g} to {self.largest.max():.6g}{error}\n"
            f"  tolerance: {self.tolerance:g}"
        )


def is_proximal(model: Autoencoder, images: Tensor, tolerance: float = 1e-4) -> Proximality:
    """Is the Jacobian of the model symmetric with eigenvalues in [0, 1] at these images?

    Where it is so everywhere, f is a Moreau proximity operator, and plug-and-play ADMM with it minimises a convex
    function; of a 2-layer tied autoencoder (Definition 2) it is by Theorem 1 of arXiv 2310.02897, see `Tied`. This
    looks at these images alone: "no" at one of them is no, "yes" at all of them says nothing of any other image.

    model: any differentiable callable (B, *image_shape) → the same, a function of each image alone; an nn.Module in
        eval mode.
    images: float32 or float64 (B, *image_shape), B ≥ 1, in the model's own number format.
    tolerance: of the asymmetry ‖J − Jᵀ‖/‖J‖, and by how much eigenvalues may leave [0, 1], above 0. In float32 the
        Jacobians of small nets are off by about 1e-6, of deep ones by 1e-5; what is not built to be symmetric is off by
        a tenth and more.

    Up to 1,024 entries in an image, J is computed as a whole, with as many backward passes. With more of them the norms
    are estimated from 16 random vectors z, ‖J − Jᵀ‖² ≈ mean ‖(J − Jᵀ)z‖², and the eigenvalues come by Lanczos'
    iteration from a random vector; `error` is its residual, and what is within that of being no is not taken for yes.

    The answer is true or false as its verdict: `if is_proximal(model, images): …`.

    Raises TypeError or ValueError where an argument is wrong, in training mode, for NaN, for answers of another shape,
    and where the gradients are not those of the function at any of the images, as finite differences in one random
    direction see it. They see what changes the slope by a tenth, and take a kink for no fault: not a mean, say, that is
    cut off from the gradients in a large image.
    """
    check_number("tolerance", tolerance, low=0, low_is_allowed=False)
    device = _check(model, images)
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        as_usual(device),
        allow_tf32(False) if device.type == "cuda" else contextlib.nullcontext(),
    ):
        rows = images.detach().to(device).flatten(1).clone()
        f = _checked_function(model, tuple(images.shape[1:]))
        _check_alone(f, rows)
        generator = torch.Generator("cpu").manual_seed(0)
        z = torch.randn(_PROBES, rows.shape[1], generator=generator, dtype=rows.dtype, device="cpu").to(device)
        look = _exactly if rows.shape[1] <= _MOST_EXACT else _by_products
        found = [look(f, row, z, tolerance) for row in rows]
    if not any(one.right for one in found):
        raise ValueError(
            "the model's gradients are not those of the function that it computes, as finite differences say at every "
            "image: a part of it is cut off from them, by .detach(), torch.no_grad() or .numpy(), or rounds"
        )
    numbers = [[one.asymmetry, one.smallest, one.largest, one.error] for one in found]
    asymmetry, smallest, largest, error = torch.tensor(numbers, dtype=torch.float64, device="cpu").unbind(1)
    return Proximality(asymmetry, smallest, largest, error, tolerance)


@dataclasses.dataclass(frozen=True)
class _Found:
    """Of one image."""

    asymmetry: float
    smallest: float
    largest: float
    error: float
    right: bool
    """Whether finite differences find the same derivative in one direction."""


def _exactly(f: _Rows, row: Tensor, z: Tensor, tolerance: float) -> _Found:
    """From all of J: that of each entry of f by a row of a batch of copies of the image."""
    d = len(row)
    parts = []
    for first in range(0, d, _ROWS):
        entries = torch.arange(first, min(d, first + _ROWS), device=row.device)
        copies = row.repeat(len(entries), 1).requires_grad_()
        answer = f(copies)
        parts.append(_gradient(answer, copies, _unit_rows(entries, answer)))
    jacobian = torch.cat(parts)
    right = _agrees(f, row, z[0], jacobian @ z[0])
    jacobian = jacobian.double()
    _check_finite("the model's Jacobian has", jacobian)
    size = float(jacobian.norm())
    asymmetry = float((jacobian - jacobian.T).norm()) / size if size > 0 else 0.0
    values = torch.linalg.eigvalsh((jacobian + jacobian.T) / 2)
    return _Found(asymmetry, float(values[0]), float(values[-1]), 0.0, right)


def _unit_rows(entries: Tensor, answer: Tensor) -> Tensor:
    """A row for each of these entries, 1 there and else 0."""
    return torch.zeros_like(answer).scatter_(1, entries[:, None], 1.0)


def _by_products(f: _Rows, row: Tensor, z: Tensor, tolerance: float) -> _Found:
    """From products J v and Jᵀ v."""
    many = _Products(f, row.repeat(len(z), 1))
    forward, backward = many.times(z), many.transposed(z)
    right = _agrees(f, row, z[0], forward[0])
    _check_finite("the model's Jacobian has", forward + backward)
    size = float(forward.double().norm())
    asymmetry = float((forward.double() - backward.double()).norm()) / size if size > 0 else 0.0
    one = _Products(f, row[None])

    def symmetric_part(v: Tensor) -> Tensor:
        v = v.to(row.dtype)[None]
        return (one.times(v) + one.transposed(v))[0].double() / 2

    return _Found(asymmetry, *_extremes(symmetric_part, z[1].double(), tolerance / 10), right)


class _Products:
    """Products with the Jacobian of f at each of n rows, [n, d] → [n, d], by backward passes alone: g(w) = Jᵀw is
    linear in w, and J v = (∂g/∂w)ᵀ v."""

    def __init__(self, f: _Rows, rows: Tensor) -> None:
        self._x = rows.requires_grad_()
        self._answer = f(self._x)
        self._w = torch.zeros_like(self._answer, requires_grad=True)
        self._pulled = _gradient(self._answer, self._x, self._w, create_graph=True)

    def times(self, v: Tensor) -> Tensor:
        """J v."""
        return _gradient(self._pulled, self._w, v, retain_graph=True).detach()

    def transposed(self, v: Tensor) -> Tensor:
        """Jᵀ v."""
        return _gradient(self._answer, self._x, v, retain_graph=True).detach()


def _extremes(product: Callable[[Tensor], Tensor], start: Tensor, enough: float) -> tuple[float, float, float]:
    """The smallest and the largest eigenvalue of a symmetric matrix, and the larger of their residuals ‖A y − λ y‖.

    Lanczos' iteration, float64, with every vector made orthogonal to all before it. It ends where the residuals are at
    most `enough`, or the space holds all that the start vector leads to.
    """
    d = len(start)
    most = min(d, _MOST_STEPS)
    basis = torch.empty(most + 1, d, dtype=torch.float64, device=start.device)
    basis[0] = start / start.norm()
    small = torch.zeros(most, most, dtype=torch.float64, device="cpu")
    for j in range(most):
        image = product(basis[j])
        known = basis[: j + 1]
        small[j, j] = float(image @ basis[j])
        left = image - (known @ image) @ known
        left -= (known @ left) @ known
        length = float(left.norm())
        exhausted = j + 1 == d or length <= _EXHAUSTED * float(image.norm())
        if exhausted or (j + 1) % _LOOK_EVERY == 0 or j + 1 == most:
            values, vectors = torch.linalg.eigh(small[: j + 1, : j + 1])
            residual = length * max(abs(float(vectors[-1, 0])), abs(float(vectors[-1, -1])))
            if exhausted:  # what is left may be rounding, or an eigenvector of which the start has but 1/√d, or a third
                residual = 0.0 if j + 1 == d else 3 * length * math.sqrt(d)
            if exhausted or residual <= enough or j + 1 == most:
                break
        small[j, j + 1] = small[j + 1, j] = length
        basis[j + 1] = left / length
    return float(values[0]), float(values[-1]), residual


def _gradient(output: Tensor, of: Tensor, weights: Tensor, **options: bool) -> Tensor:
    """The product of `weights` with the derivative of the output; zeros where it does not depend on `of`."""
    if not output.requires_grad:
        return torch.zeros_like(of)
    try:
        (found,) = torch.autograd.grad(output, of, weights, allow_unused=True, **options)
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise ValueError(f"the model is not differentiable: {one_line(error)}") from error
    return torch.zeros_like(of) if found is None else found


def _agrees(f: _Rows, row: Tensor, v: Tensor, product: Tensor) -> bool:
    """Whether J v is about (f(x + hv) − f(x − hv))/2h for one of the steps h that show more than rounding."""
    unit = torch.finfo(row.dtype).eps
    told = False
    with torch.no_grad():
        for step in _STEPS:
            ahead, behind = f(torch.stack([row + step * v, row - step * v]))
            slope = (ahead - behind) / (2 * step)
            size, rounding = float(slope.norm()), unit * float(ahead.norm() + behind.norm() + 1) / step
            if not math.isfinite(size):
                return True  # f has no values near this image: nothing to compare with
            if size > _TOLD * rounding:
                told = True
                if float((product - slope).norm()) <= _NEAR * size + rounding:
                    return True
            elif not told and float(product.norm()) <= _TOLD * rounding:
                return True
    return False


def _check_finite(what: str, values: Tensor) -> None:
    if not values.isfinite().all():
        raise ValueError(f"{what} NaN or infinite entries")


def _check(model: Autoencoder, images: Tensor) -> torch.device:
    """Where the model is. Raises TypeError or ValueError where the arguments are not what `is_proximal` asks for."""
    if not callable(model):
        raise TypeError(f"model must be callable, not {type(model).__name__}")
    if not isinstance(images, Tensor) or images.dtype not in (torch.float32, torch.float64):
        found = images.dtype if isinstance(images, Tensor) else type(images).__name__
        raise TypeError(f"images must be a float32 or float64 tensor, not {found}")
    if images.ndim < 2 or images.numel() == 0:
        raise ValueError(f"images must be at least one, (B, *image_shape), not of shape {tuple(images.shape)}")
    _check_finite("images have", images)
    shape = getattr(model, "image_shape", None)
    if isinstance(shape, (tuple, list)) and tuple(shape) != tuple(images.shape[1:]):
        raise ValueError(f"the model is for images of shape {tuple(shape)}; these are {tuple(images.shape[1:])}")
    if not isinstance(model, nn.Module):
        return images.device
    if _is_training(model):
        raise ValueError("the model is in training mode; call model.eval() first")
    return next((tensor.device for tensor in itertools.chain(model.parameters(), model.buffers())), images.device)


def _is_training(module: nn.Module) -> bool:
    if isinstance(module, torch.fx.GraphModule):  # an exported program has the flag of training, but no such mode
        return False
    return module.training or any(map(_is_training, module.children()))


def _checked_function(model: Autoencoder, image_shape: tuple[int, ...]) -> _Rows:
    """The model on rows. Raises ValueError where it fails, or answers with something else than images like these."""

    def f(rows: Tensor) -> Tensor:
        # a copy: it may write into what it is given
        images = rows.view(-1, *image_shape).clone()
        try:
            answer = model(images)
        except Exception as error:
            if is_out_of_memory(error):
                raise
            raise ValueError(f"the model fails on images of shape {image_shape}: {one_line(error)}") from error
        if not isinstance(answer, Tensor):
            raise ValueError(f"the model returned a {type(answer).__name__}, not a tensor: see autoencoders.adapt")
        if answer.shape != images.shape or answer.dtype != images.dtype:
            raise ValueError(
                f"the model returned {answer.dtype} {tuple(answer.shape)} for images {images.dtype} "
                f"{tuple(images.shape)}: they must be alike"
            )
        return answer.flatten(1)

    return f


def _check_alone(f: _Rows, rows: Tensor) -> None:
    """Raise ValueError where an answer is not finite, or depends on what else is in the batch, or on chance."""
    with torch.no_grad():
        for row in rows:
            alone = f(row[None])
            _check_finite("the model's answers have", alone)
            others = f(torch.stack([row, row.flip(0)]))[:1]
            if not float((alone - others).abs().max()) <= _ALONE * (1 + float(alone.abs().max())):
                raise ValueError(
                    "the model's answer to an image depends on what else is in the batch, or on chance: it must be a "
                    "function of each image alone"
                )

"""Theorem 3: two layers, f(x) = W φ(Ax) with ReLU and no biases, of which W alone is trained."""

from __future__ import annotations

import torch
from torch import Tensor


def last_layer(hidden: Tensor, images: Tensor) -> Tensor:
    """W (d, k), float64, that gradient descent from 0 reaches with A fixed: X φ(AX)⁺, of minimum norm (Appendix C).

    hidden: A (k, d). images: (n, d), n ≤ k.
    """
    features = (images.double() @ hidden.double().T).relu()
    weights: Tensor = images.double().T @ torch.linalg.pinv(features.T)
    return weights


def jacobian(last: Tensor, hidden: Tensor, image: Tensor) -> Tensor:
    """W diag(φ′(Ax)) A, the Jacobian of f at x (d,): float64 (d, d).

    f is homogeneous, f(cx) = c f(x) for c > 0, so that J(x) x = f(x): where f(x) = x, x is an eigenvector with the
    eigenvalue 1 exactly. The theorem's "stable" cannot mean that all eigenvalues are below 1: every multiple of a
    training image is a fixed point, and a training image is *marginal*. For one image and wide A, the Jacobian tends to
    xxᵀ/‖x‖²: all other eigenvalues fall to 0.
    """
    a, x = hidden.double(), image.double()
    return last @ ((a @ x > 0).double()[:, None] * a)

"""The paper's loss, literally, in plain torch: what all else is tested against.  Iurada et al."""

from __future__ import annotations

import torch
from torch import Tensor

from memrecon_fast.reconstruction.random_features import ACTIVATIONS, RandomFeatures


def loss(model: RandomFeatures, inputs: Tensor, theta: Tensor) -> Tensor:
    """L(X̂) = ‖P⊥ θ‖²/‖θ‖²: the share of θ that does not lie in the span of the features of the inputs (n, d)."""
    features = model.features(inputs)
    return (theta - features.T @ coefficients(model, inputs, theta)).square().sum() / theta.square().sum()


def coefficients(model: RandomFeatures, inputs: Tensor, theta: Tensor) -> Tensor:
    """α = (Φ Φᵀ)⁻¹ Φ θ (n,): the best coefficients of these inputs."""
    features = model.features(inputs)
    found: Tensor = torch.linalg.solve(features @ features.T, features @ theta)
    return found


def gradient(model: RandomFeatures, inputs: Tensor, theta: Tensor) -> Tensor:
    """∂L/∂x_i = −(2 α_i/‖θ‖²) Vᵀ(σ'(V x_i) ∘ r), (n, d), with r = P⊥ θ."""
    alpha = coefficients(model, inputs, theta)
    residual = theta - model.features(inputs).T @ alpha
    derivative = ACTIVATIONS[model.activation].derivative(inputs @ model.weights[:].T)
    return -2 / theta.square().sum() * alpha[:, None] * ((derivative * residual) @ model.weights[:])

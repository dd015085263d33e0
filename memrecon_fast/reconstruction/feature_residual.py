"""How much of the features of the true inputs lies outside the span of those that were found: the paper's Figure 2."""

from __future__ import annotations

import torch
from torch import Tensor

from memrecon_fast.reconstruction.projected import Features


def feature_residual(model: Features, truth: Tensor, found: Tensor) -> Tensor:
    """‖P⊥ φ(x_i)‖/‖φ(x_i)‖ float64 (n,), P⊥ away from the features of the inputs that were found.

    truth: float64 (n, d), of the lengths that the model saw. found: (m, d).
    """
    features, basis = (model.features(inputs).double() for inputs in (truth, found))
    orthonormal = torch.linalg.qr(basis.T).Q
    outside = features - (features @ orthonormal) @ orthonormal.T
    found_share: Tensor = outside.norm(dim=1) / features.norm(dim=1).clamp_min(torch.finfo(torch.float64).tiny)
    return found_share

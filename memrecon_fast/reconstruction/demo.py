"""The demonstration: models of random features of one set of photographs, at three numbers of parameters."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from memrecon_fast.images.photographs import make_photographs
from memrecon_fast.reconstruction.files import save
from memrecon_fast.reconstruction.pictures import Scaling
from memrecon_fast.reconstruction.random_features import RandomFeatures
from memrecon_fast.reconstruction.search import Law, Search, Target, Truth, digest_of_tensors

IMAGES, SIZE = 10, 8
RATIOS = (1.5, 2.5, 5.0)
"""p/(d·n)."""
_FITS = (0.25, 0.5, 0.8, 1.0, 1.25, 2.0, 5.0, 20.0)
"""p/n of the models that only show how well the labels are fitted."""


def make_demo(folder: Path, images: int = IMAGES, size: int = SIZE, ratios: Sequence[float] = RATIOS) -> Search:
    """What the demonstration looks for; leaves the photographs, `members.npy`, and a file for each model,
    `model-1.5.safetensors`, …, in the folder."""
    pictures, _ = make_photographs(images, 0, size)
    np.save(folder / "members.npy", pictures.numpy())
    scaling, shape = Scaling(), (3, size, size)
    inputs = scaling.inputs_of(pictures)
    n, d = inputs.shape
    labels = torch.where(torch.arange(n) % 2 == 0, 1.0, -1.0).double()
    targets, errors = (
        [],
        [(p, training_error(inputs, labels, p)) for p in sorted({max(1, round(f * n)) for f in _FITS})],
    )
    for ratio in ratios:
        model = RandomFeatures.from_seed(round(ratio * n * d), d)
        theta = model.fit(inputs, labels)
        save(model, theta, folder / f"model-{ratio:g}.safetensors", shape, scaling)
        errors.append((model.p, float((model.features(inputs) @ theta - labels).square().mean())))
        digest = digest_of_tensors(model.weights[:], theta)
        targets.append(Target(f"p = {ratio:g} d·n", model, theta, digest, shape, scaling))
    names = [f"photograph {index}" for index in range(n)]
    return Search(
        targets,
        images=n,
        truth=Truth("photographs of scikit-image", pictures, names),
        law=Law(n, errors),
    )


def training_error(inputs: Tensor, labels: Tensor, p: int) -> float:
    """The mean squared error on the labels of the best last layer over p random features."""
    features = RandomFeatures.from_seed(p, inputs.shape[1]).features(inputs)
    theta = torch.linalg.lstsq(features, labels[:, None]).solution
    return float((features @ theta - labels[:, None]).square().mean())

"""How well the model reconstructs the images of an audit as they are; and which pixels it may expect instead."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from memrecon_fast.audit.analysis.reconstruction_error import NOT_RECONSTRUCTED
from memrecon_fast.autoencoders.adapting import Adapted, adapt
from memrecon_fast.common.typing import Autoencoder
from memrecon_fast.engine.prox import Prox, device_of, make_prox
from memrecon_fast.engine.transfer import working_on
from memrecon_fast.images.scan import Images

MAX_IMAGES = 1024
"""Of a split: so many are measured, evenly spaced."""
_BATCH = 64
_IMAGES_OF_HINT = 64
_HUNDREDFOLD = 100
_GOOD = 1e-5  # where nothing is looked for

_IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
USUAL: list[tuple[str, dict[str, Any]]] = [
    ("--pixel-range 0,1", {}),
    ("--pixel-range -1,1", {"pixel_range": (-1.0, 1.0)}),
    ("--pixel-range 0,255", {"pixel_range": (0.0, 255.0)}),
    ("--mean 0.1307 --std 0.3081", {"mean": 0.1307, "std": 0.3081}),
]
USUAL_IN_COLOUR: list[tuple[str, dict[str, Any]]] = [
    ("--mean 0.485,0.456,0.406 --std 0.229,0.224,0.225", _IMAGENET),
    ("--mean 0.4914,0.4822,0.4465 --std 0.247,0.2435,0.2616", {
        "mean": (0.4914, 0.4822, 0.4465), "std": (0.247, 0.2435, 0.2616),
    }),
    ("--channels bgr", {"channels": "bgr"}),
    ("--pixel-range -1,1 --channels bgr", {"pixel_range": (-1.0, 1.0), "channels": "bgr"}),
    ("--pixel-range 0,255 --channels bgr", {"pixel_range": (0.0, 255.0), "channels": "bgr"}),
]  # fmt: skip
"""The pixels that models usually take, as options of the command and arguments of `adapt`: [−1, 1], 0…255, those of
MNIST, ImageNet and CIFAR-10 (means and standard deviations as torchvision's examples have them), and OpenCV's order."""


def measure(autoencoder: Autoencoder, splits: Mapping[str, Images]) -> dict[str, Any]:
    """The errors of each split and the "hint", for JSON, see `analysis.reconstruction_error`.

    Images that cannot be read are left out: the work itself names them.
    """
    found = {split: _errors(autoencoder, _some(images, MAX_IMAGES)) for split, images in splits.items()}
    return {**found, "hint": _hint(autoencoder, splits["members"], found["members"]["mean"])}


def _hint(autoencoder: Autoencoder, members: Images, as_given: float | None) -> dict[str, Any] | None:
    """The usual pixels under which the members' error is lowest, if it is a hundredth of `as_given` or less."""
    if as_given is not None and as_given < _GOOD:
        return None
    inner = autoencoder.model if isinstance(autoencoder, Adapted) else autoencoder
    batches = list(_some(members, _IMAGES_OF_HINT))
    best: dict[str, Any] | None = None
    for options, pixels in USUAL + (USUAL_IN_COLOUR if members.image_shape[0] == 3 else []):
        try:
            mean = _errors(adapt(inner, **pixels), batches)["mean"]
        except (TypeError, ValueError):  # it cannot take such pixels at all
            continue
        if mean is not None and mean <= NOT_RECONSTRUCTED and (best is None or mean < best["mean"]):
            best = {"options": options, "mean": mean}
    return best if best is not None and (as_given is None or _HUNDREDFOLD * best["mean"] <= as_given) else None


def _some(images: Images, most: int) -> Iterator[Tensor]:
    """So many of the images at most, evenly spaced, in batches."""
    usable = images.usable()
    chosen = [usable[len(usable) * k // most] for k in range(most)] if len(usable) > most else usable
    for begin in range(0, len(chosen), _BATCH):
        batch = []
        for index in chosen[begin : begin + _BATCH]:
            with contextlib.suppress(ValueError):  # it cannot be read any more
                batch.append(images[index])
        if batch:
            yield torch.stack(batch)


def _errors(autoencoder: Autoencoder, batches: Iterable[Tensor]) -> dict[str, Any]:
    """Of the images (B, C, H, W) of all batches: their number, errors and variance.

    Raises TypeError or ValueError as `make_prox`.
    """
    prox: Prox | None = None
    errors, variances = [], []
    for images in batches:
        prox = prox or make_prox(autoencoder, images.shape[1:], device_of(autoencoder, torch.device("cpu")))
        for rows in prox.to_rows(images).split(prox.most_rows):
            with working_on(prox.device):
                answer = prox(rows.to(prox.device)).cpu()
            mse = (answer - rows).double().square().mean(dim=1)
            errors += torch.where(mse.isfinite(), mse, math.inf).tolist()
            variances += rows.double().var(dim=1, correction=0).tolist()
    return {
        "images": len(errors),
        "mean": _finite(np.mean(errors)) if errors else None,
        "median": _finite(np.median(errors)) if errors else None,
        "above": sum(error > NOT_RECONSTRUCTED for error in errors),
        "variance": float(np.mean(variances)) if errors else None,
    }


def _finite(number: np.floating[Any]) -> float | None:
    return float(number) if np.isfinite(number) else None

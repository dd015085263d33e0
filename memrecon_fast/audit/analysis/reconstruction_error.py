"""What the model makes of the images as they are, ‖f(x) − x‖²/d: all other numbers of an audit rest on it.

A model that expects other pixels than [0, 1], or that never got its weights, reconstructs nothing; then nothing comes
back from degraded copies either, and that says nothing about its training images.

For each split: "images" that were measured, their "mean" and "median" error (None where f is not finite), how many are
"above" `NOT_RECONSTRUCTED`, and the mean "variance" of an image's pixels; and "hint": None, or "options" of the command
under which the error of the members falls a hundredfold, and its "mean" then.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from memrecon_fast.metrics import ACCURATE_MSE

NOT_RECONSTRUCTED = 1e-2
"""Mean squared error above which an image counts as not reconstructed; two photographs differ by about 0.1."""


RETURNED = 1e-14
"""Mean squared error of an image that is returned as it was, but for rounding; no training comes near it."""


def misses_members(errors: Mapping[str, Any]) -> bool:
    """Whether the model does not reconstruct what it is said to be trained on: the mean error is above
    `NOT_RECONSTRUCTED`, or above half of what an image of one grey would have; or other pixels are far better."""
    members = errors["members"]
    if not members["images"]:
        return False
    mean = members["mean"]
    return mean is None or mean > min(NOT_RECONSTRUCTED, members["variance"] / 2) or errors["hint"] is not None


def in_words(errors: Mapping[str, Any]) -> str:
    """What the errors of each split are, and where they leave little that is accurate."""
    splits = [f"{split} {_number(errors[split])}" for split in ("members", "controls") if split in errors]
    text = f"The model itself misses the images as they are by a mean squared error of: {', '.join(splits)}."
    mean = errors["members"]["mean"]
    if mean is None or mean <= ACCURATE_MSE or misses_members(errors):
        return text
    return f"{text} A recovery counts as accurate below {ACCURATE_MSE:g}: where the model misses more, few are."


def warning_of(errors: Mapping[str, Any]) -> str | None:
    """What to say, loudly, where the members are not reconstructed, or controls as well as they are returned as they
    were; None where neither is so."""
    members, hint = errors["members"], errors["hint"]
    if _returned(errors):
        return (
            "The model returns images as they are, controls too: what comes back then says nothing about what it was "
            "trained on. Is what it returns its reconstruction (--output), and not its input?"
        )
    if not misses_members(errors):
        return None
    found = f"{members['above']} of {members['images']} by more than {NOT_RECONSTRUCTED}"
    if not members["above"]:
        found = f"the variance of their pixels is {members['variance']:.1e}"
    text = (
        f"The model does not reconstruct the members: it misses them, as they are, by a mean squared error of "
        f"{_number(members)} ({found}). That few come back then says nothing about what it was trained on."
    )
    if hint is not None:
        return f"{text} With {hint['options']} the error falls to {hint['mean']:.1e}."
    return (
        f"{text} Usually it expects other pixels (--pixel-range, --mean and --std, --channels bgr), its weights were "
        f"not given (--weights), or these are not the images that it was trained on."
    )


def _returned(errors: Mapping[str, Any]) -> bool:
    means = [errors[split]["mean"] for split in ("members", "controls") if split in errors and errors[split]["images"]]
    return len(means) == 2 and all(mean is not None and mean < RETURNED for mean in means)


def _number(split: Mapping[str, Any]) -> str:
    if not split["images"]:
        return "not measured"
    return "not finite" if split["mean"] is None else f"{split['mean']:.1e}"

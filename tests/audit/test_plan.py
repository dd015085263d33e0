from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import nn

import memrecon_fast as mf
from memrecon_fast.attractors.survey.plan import Survey
from memrecon_fast.audit.plan import DEGRADED_MASK, Audit
from memrecon_fast.audit.store.records import Cell
from memrecon_fast.engine.stated import stated_shape
from memrecon_fast.images.scan import Images, scan
from memrecon_fast.images.sources import from_array
from memrecon_fast.results import noise_floor
from tests.helpers.auditing import SETTINGS, images_of, small_audit
from tests.helpers.memorised import Memorised


def black(*shape: int) -> Images:
    return scan(from_array(np.zeros(shape, np.uint8)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"methods": ()}, "at least one method"),
        ({"methods": ("magic",)}, "method must be one of"),
        ({"methods": ("paper", "paper")}, "a method is named twice: paper, paper"),
        ({"masks": {}}, "at least one mask"),
        ({"noise_std": -1.0}, "noise_std"),
        ({"noise_std": float("nan")}, "noise_std"),
        ({"noise_std": 1e39}, "noise_std must be at most 1"),
        ({"keep_images": -1}, "keep_images"),
        ({"slots": 0}, "slots"),
        ({"splits": {"controls": black(2, 3, 8, 8)}}, "needs members"),
        ({"splits": {"others": black(2, 3, 8, 8)}}, "split must be one of"),
    ],
)
def test_audits_that_make_no_sense_are_refused(memorised: Memorised, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small_audit(memorised, **changes)


@pytest.mark.parametrize(
    ("controls", "message"),
    [
        (torch.rand(2, 3, 8, 8), r"not Tensor of shape \(2, 3, 8, 8\); expected .*from_array\(tensor\.numpy\(\)\)\)$"),
        (np.zeros((2, 8, 8)), r"not ndarray of shape \(2, 8, 8\); expected mf\.images\.scan\(.*from_array\(array\)\)$"),
        ("controls.npy", r"not str; expected mf\.images\.open_images\(FOLDER or FILE\)$"),
    ],
)
def test_what_is_no_images_is_refused_in_one_line(memorised: Memorised, controls: Any, message: str) -> None:
    members = images_of(memorised.members)
    with pytest.raises(TypeError, match=f"^the controls must be Images, {message}"):
        Audit({"members": members, "controls": controls}, small_audit(memorised).masks)
    with pytest.raises(TypeError, match=f"^the controls must be Images, {message}"):
        Survey({"members": members, "controls": controls})
    made = mf.images.scan(mf.images.from_array(memorised.controls.numpy()))  # as it says
    assert Audit({"members": members, "controls": made}, small_audit(memorised).masks).image_shape == (3, 8, 8)


def test_what_is_no_audit_is_refused_in_one_line(memorised: Memorised, tmp_path: Path) -> None:
    wrong: Any = memorised.autoencoder
    with pytest.raises(TypeError, match=r"^plan must be an Audit, mf\.audit\.Audit\(splits, masks\), not "):
        mf.audit.run(wrong, memorised.autoencoder, tmp_path / "run")


def test_what_is_not_by_name_is_refused_in_one_line(memorised: Memorised) -> None:
    audit = small_audit(memorised)
    tensor, names = cast(Any, memorised.members), cast(Any, ("half",))
    with pytest.raises(TypeError, match=r"^splits must be Images by name, a dict, not Tensor$"):
        Audit(tensor, audit.masks)
    with pytest.raises(TypeError, match=r"^masks must be bool tensors by name, a dict, not tuple$"):
        Audit(audit.splits, names)


def test_how_an_audit_and_its_images_are_shown(memorised: Memorised) -> None:
    audit = small_audit(memorised)
    members = audit.splits["members"]
    assert repr(members) == f"Images({len(members)} of shape (3, 8, 8))"
    assert repr(dataclasses.replace(members, problems={1: "it is damaged"})).endswith(", 1 of them not usable)")
    shown = repr(audit)
    assert shown.startswith(f"Audit(splits={dict(audit.splits)!r}, masks={list(audit.masks)!r}, methods=")
    assert len(shown) < 1500  # no pixels


def test_numbers_that_are_none_are_refused(memorised: Memorised) -> None:
    for changes in ({"noise_std": "0.1"}, {"keep_images": 1.5}, {"slots": "8"}):
        with pytest.raises(TypeError, match=next(iter(changes))):
            small_audit(memorised, **changes)


def test_images_of_another_shape_are_refused(memorised: Memorised) -> None:
    audit = small_audit(memorised)
    with pytest.raises(ValueError, match=r"controls are of shape \(1, 8, 8\), the members of \(3, 8, 8\)"):
        dataclasses.replace(audit, splits={**audit.splits, "controls": black(2, 1, 8, 8)})
    model = mf.autoencoders.FullyConnected((3, 8, 9), 4, 2).eval()
    with pytest.raises(ValueError, match=r"model is for images of shape \(3, 8, 9\); these are \(3, 8, 8\)"):
        audit.prepare(model)


def test_a_noisy_audit_does_not_put_the_kept_pixels_back(memorised: Memorised) -> None:
    assert small_audit(memorised).settings == SETTINGS
    noisy = small_audit(memorised, noise_std=0.02)
    assert noisy.settings == dataclasses.replace(SETTINGS, restore_known_pixels=False)
    assert dataclasses.replace(noisy) == noisy


def solvers_of(audit: Audit, autoencoder: nn.Module) -> dict[str, Any]:
    """The solver of each method that has slots."""
    return {method: stream.args[0] for method, stream in audit.prepare(autoencoder).items()}  # type: ignore[attr-defined]


def test_what_noise_leaves_of_a_score_is_enough_to_be_recognised(memorised: Memorised) -> None:
    """Of the pixels that count and carry noise: where the mask is known, those that are kept, of any of the masks."""
    audit = small_audit(memorised, noise_std=0.02)
    fewest = min(int(mask.sum()) for mask in audit.masks.values())
    solvers = solvers_of(audit, memorised.autoencoder)
    for method, noisy in (("paper", 192), ("known-mask", fewest)):
        expected = SETTINGS.recognized_below + noise_floor(0.02, noisy, 192)
        assert solvers[method].recognized_below == expected
    assert 0 < fewest < 192


def test_cells_are_in_the_order_of_methods_masks_and_splits(memorised: Memorised) -> None:
    audit = small_audit(memorised, methods=("iterate", "paper"))
    of_paper = [Cell(split, mask, "paper") for mask in ("center", "random-50") for split in ("members", "controls")]
    assert audit.cells("paper") == of_paper
    assert audit.cells() == [dataclasses.replace(cell, method="iterate") for cell in of_paper] + of_paper


@pytest.mark.parametrize(
    ("methods", "headline"),
    [
        (("iterate", "paper", "accelerated"), "accelerated"),
        (("iterate", "known-mask", "paper"), "paper"),
        (("known-mask", "iterate"), "known-mask"),
        (("iterate",), "iterate"),
    ],
)
def test_the_first_blind_method_is_the_headline(memorised: Memorised, methods: tuple[str, ...], headline: str) -> None:
    assert small_audit(memorised, methods=methods).headline == headline


def test_each_method_has_a_solver(memorised: Memorised) -> None:
    audit = small_audit(memorised, methods=("iterate", "paper", "accelerated"))
    solvers = solvers_of(audit, memorised.autoencoder)
    assert [type(solvers[method]).__name__ for method in audit.methods] == [
        "IterationSolver",
        "PaperSolver",
        "AcceleratedSolver",
    ]
    with pytest.raises(ValueError, match="training mode"):
        audit.prepare(nn.Sequential(nn.Flatten(), nn.Unflatten(1, (3, 8, 8))))


def test_methods_try_the_gammas_that_were_given_or_their_own(memorised: Memorised) -> None:
    methods = ("accelerated", "paper", "known-mask")
    for gamma, starts, attempts in ((None, 1, (3, 1, 1)), (0.3, 1, (1, 1, 1)), ((0.3, 1.0), 2, (4, 4, 2))):
        audit = small_audit(memorised, methods=methods, settings=mf.Settings(gamma=gamma, starts=starts))
        solvers = solvers_of(audit, memorised.autoencoder)
        assert tuple(solvers[method].attempts for method in methods) == attempts


def degraded_audit(memorised: Memorised, **changes: Any) -> Audit:
    masks = {DEGRADED_MASK: torch.ones(3, 8, 8, dtype=torch.bool)}
    return small_audit(memorised, **{"masks": masks, "methods": ("accelerated",), "degraded": True, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"methods": ("paper", "iterate")}, "what iterate makes of degraded images cannot be judged"),
        ({"masks": {"half": torch.ones(3, 8, 8, dtype=torch.bool)}}, "taken as they are: the only mask is 'given'"),
    ],
)
def test_what_cannot_be_done_with_degraded_images(memorised: Memorised, changes: dict[str, Any], message: str) -> None:
    assert degraded_audit(memorised).cells()
    with pytest.raises(ValueError, match=message):
        degraded_audit(memorised, **changes)


@pytest.mark.parametrize("stated", [32, (8, 8), "3x8x8", (3.0, 9.0, 9.0)])
def test_an_attribute_that_means_something_else_is_passed_over(memorised: Memorised, stated: object) -> None:
    model = nn.Sequential(memorised.autoencoder).eval()
    model.image_shape = stated  # type: ignore[assignment]
    assert stated_shape(model) is None
    assert small_audit(memorised, methods=("iterate",)).prepare(model)


def test_the_shape_that_a_model_states() -> None:
    model = nn.Identity()
    model.image_shape = torch.Size((3, 9, 9))  # type: ignore[assignment]
    assert stated_shape(model) == (3, 9, 9)
    assert stated_shape(nn.Identity()) is None

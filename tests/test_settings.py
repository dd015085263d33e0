from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import pytest
import torch

from memrecon_fast import Settings
from memrecon_fast.common.seeding import keyed_random


@pytest.mark.parametrize("gamma", [0.1, 1, None, (0.5,), (1.0, 0.1)])
def test_settings_survive_json_and_are_hashable(gamma: Any) -> None:
    settings = Settings(gamma=gamma, initial_mask="zeros", seed=7, solver="accelerated", starts=3, memory=4, settle=0)
    again = Settings.from_dict(json.loads(json.dumps(settings.to_dict())))
    assert again == settings
    assert len({again, settings}) == 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.gamma = 1.0  # type: ignore[misc]


def test_the_gammas_are_those_given_or_those_of_the_solver() -> None:
    assert Settings(gamma=0.3).gammas == (0.3,)
    assert Settings(gamma=(1.0, 0.1)).gammas == (1.0, 0.1)
    assert Settings(solver="paper").gammas == (0.5,)
    several = Settings(solver="accelerated").gammas
    assert len(several) > 1
    assert Settings(solver="accelerated", gamma=several).gammas == several


def test_an_unknown_name_is_named() -> None:
    with pytest.raises(ValueError, match="unknown settings: gama, steps"):
        Settings.from_dict({"gama": 0.1, "steps": 3})


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("gamma", 0.0, "gamma must be finite and above 0 and at most 1e[+]06, not 0.0"),
        ("gamma", -1, "gamma must be finite and above 0"),
        ("gamma", float("nan"), "gamma must be finite"),
        ("inner_iterations", 1, "inner_iterations must be at least 2"),
        ("tolerance", -1e-9, "tolerance must be finite and at least 0"),
        ("patience", 0, "patience must be at least 1"),
        ("max_outer_iterations", 0, "max_outer_iterations must be at least 1"),
        ("initial_mask", "ones", "initial_mask must be one of 'random', 'zeros', not 'ones'"),
        ("solver", "newton", "solver must be one of 'paper', 'accelerated', not 'newton'"),
        (
            "precision",
            "float16",
            "precision must be one of 'float32', 'float32x3', 'tf32', 'bfloat16', 'progressive', not 'float16'",
        ),
        ("gamma", (), r"gamma must be one number or several different ones, not \(\)"),
        ("gamma", (0.5, 0.1, 0.5), r"gamma must be one number or several different ones, not \(0.5, 0.1, 0.5\)"),
        ("gamma", (0.5, 0.0), "gamma must be finite and above 0 and at most 1e[+]06, not 0.0"),
        ("starts", 0, "starts must be at least 1 and at most 2147483647, not 0"),
        ("recognized_below", -1e-4, "recognized_below must be finite and at least 0, not -0.0001"),
        ("recognized_below", float("inf"), "recognized_below must be finite"),
        ("mask_period", 0, "mask_period must be at least 1 and at most 2147483647, not 0"),
        ("memory", -1, "memory must be at least 0 and at most 32, not -1"),
        ("memory", 33, "memory must be at least 0 and at most 32, not 33"),
        ("settle", -1, "settle must be at least 0 and at most 2147483647, not -1"),
        ("seed", -1, "seed must be at least 0"),
        ("seed", 2**64, "seed must be at least 0 and at most"),
        ("gamma", 1e300, "gamma must be finite and above 0 and at most 1e[+]06, not 1e[+]300"),
        ("gamma", 10**400, "gamma must be finite"),
        ("patience", 2**31, "patience must be at least 1 and at most 2147483647"),
        ("max_outer_iterations", 2**31, "max_outer_iterations must be at least 1 and at most 2147483647"),
    ],
)
def test_values_out_of_range(name: str, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Settings(**{name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("gamma", "0.5"),
        ("gamma", True),
        ("gamma", [0.1, 0.5]),
        ("gamma", (0.1, "0.5")),
        ("patience", 3.0),
        ("seed", None),
        ("restore_known_pixels", 1),
        ("starts", 2.0),
        ("recognized_below", "1e-4"),
        ("mask_period", None),
        ("memory", 5.0),
        ("settle", True),
    ],
)
def test_values_of_the_wrong_type(name: str, value: Any) -> None:
    with pytest.raises(TypeError, match=f"{name} must be"):
        Settings(**{name: value})


def test_the_initial_mask_is_a_function_of_seed_and_index() -> None:
    shape = (3, 17, 19)  # a number of bits that is not a multiple of eight
    masks = {(seed, i): Settings(seed=seed).draw_initial_mask(i, shape) for seed in (1, 2) for i in (0, 1)}
    assert torch.equal(masks[1, 0], Settings(seed=1).draw_initial_mask(0, shape))
    assert len({tuple(mask.flatten().tolist()) for mask in masks.values()}) == 4
    assert all(mask.dtype == torch.bool and mask.shape == shape for mask in masks.values())
    # 969 fair coins have a standard deviation of 0.016
    assert all(abs(mask.float().mean() - 0.5) < 0.08 for mask in masks.values())
    assert not Settings(initial_mask="zeros").draw_initial_mask(0, shape).any()


@pytest.mark.parametrize("size", [1, 7, 8, 9, 63, 64, 65, 969])
def test_the_initial_mask_is_random_bytes_of_numpys(size: int) -> None:
    """As they were drawn when the committed results were made."""
    expected = np.unpackbits(np.frombuffer(keyed_random("initial mask", 3, 8).bytes(-(-size // 8)), np.uint8))[:size]
    assert Settings(seed=3).draw_initial_mask(8, (size,)).tolist() == expected.astype(bool).tolist()


def test_every_start_has_a_random_mask_of_its_own_but_the_first_of_zeros() -> None:
    shape = (3, 17, 19)
    drawn = {}
    for initial_mask in ("random", "zeros"):
        settings = Settings(initial_mask=initial_mask)
        for start in range(4):
            drawn[initial_mask, start] = settings.draw_initial_mask(5, shape, start)
            assert torch.equal(drawn[initial_mask, start], settings.draw_initial_mask(5, shape, start))
    assert not drawn["zeros", 0].any()
    assert len({tuple(mask.flatten().tolist()) for mask in drawn.values()}) == 5
    assert all(torch.equal(drawn["zeros", start], drawn["random", start]) for start in (1, 2, 3))
    assert all(abs(drawn["random", start].float().mean() - 0.5) < 0.08 for start in range(4))


def test_every_purpose_seed_and_index_has_random_numbers_of_its_own() -> None:
    keys = [
        ("a", 0, 0),
        ("b", 0, 0),
        ("a", 1, 0),
        ("a", 0, 1),
        ("a", 2**63, 0),
        ("a", 2**63 + 5, 0),
        ("a", 2**64 - 1, 0),
    ]
    drawn = {keyed_random(*key).integers(2**63) for key in keys}
    assert len(drawn) == len(keys)
    assert keyed_random(*keys[5]).integers(2**63) in drawn


@pytest.mark.parametrize(
    ("solver", "name", "value", "reader"),
    [
        ("paper", "memory", 7, "accelerated"),
        ("paper", "mask_period", 5, "accelerated"),
        ("paper", "settle", 0, "accelerated"),
        ("paper", "stall", 3, "accelerated"),
        ("paper", "settled_counts", 3, "accelerated"),
        ("accelerated", "inner_iterations", 20, "paper"),
    ],
)
def test_a_setting_that_the_solver_does_not_read_is_refused(solver: str, name: str, value: int, reader: str) -> None:
    default = getattr(Settings(), name)
    message = f"the solver '{solver}' does not read {name}: leave it at {default}, or choose the solver '{reader}'"
    with pytest.raises(ValueError, match=message):
        Settings(solver=solver, **{name: value})  # type: ignore[arg-type]
    Settings(solver=solver, **{name: default})
    theirs = Settings(solver=reader, **{name: value})  # type: ignore[arg-type]
    ours = theirs.with_solver(solver)
    assert (ours.solver, getattr(ours, name)) == (solver, default)
    assert theirs.with_solver(reader) == theirs


def test_another_solver_keeps_what_both_read() -> None:
    settings = Settings(gamma=0.3, patience=5, memory=7, seed=3)
    assert settings.with_solver("paper") == Settings(solver="paper", gamma=0.3, patience=5, seed=3)


def test_another_solver_must_be_one() -> None:
    with pytest.raises(ValueError, match="solver must be one of 'paper', 'accelerated', not 'papr'"):
        Settings().with_solver("papr")


OF_EARLIER = {
    "gamma": None, "inner_iterations": 40, "tolerance": 1e-9, "patience": 3, "max_outer_iterations": 200,
    "initial_mask": "random", "restore_known_pixels": True, "precision": "float32", "seed": 42, "starts": 1,
    "recognized_below": 1e-5, "mask_period": 3, "memory": 5, "settle": 2, "stall": 10,
}  # fmt: skip
"""What a version before `settled_counts` wrote."""


@pytest.mark.parametrize("solver", ["accelerated", "paper"])
def test_settings_of_an_earlier_version_are_read_and_written_as_they_were(solver: str) -> None:
    before = {**OF_EARLIER, "solver": solver}
    settings = Settings.from_dict(before)
    assert settings.to_dict() == before
    if solver == "accelerated":
        assert (settings.settled_counts, settings.stall, settings.comparisons) == (1, 10, 3)
    assert Settings.from_dict(settings.to_dict()) == settings


def test_a_part_of_the_settings_is_that_of_today() -> None:
    assert Settings.from_dict({}) == Settings()
    assert Settings.from_dict({"gamma": 0.5}) == Settings(gamma=0.5)
    assert "settled_counts" not in Settings(solver="paper").to_dict()

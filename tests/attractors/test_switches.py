"""What is switched in torch around a call does not reach the work, and tensors of results can be used as any others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from memrecon_fast.attractors import basins, cycles, harvest, recovery_curve, stability
from tests.engine.test_switches import SWITCHES, state

IMAGES = torch.rand(4, 3, 4, 4, generator=torch.Generator().manual_seed(1))
MIX = torch.randn(48, 48, generator=torch.Generator().manual_seed(2)) / 48**0.5


def model(x: Tensor) -> Tensor:
    mixed = torch.tanh((x.flatten(1) - 0.5) @ MIX)
    return 0.5 + mixed.view_as(x)


def turned(x: Tensor) -> Tensor:
    return x.roll(1, dims=-1)


CALLS: dict[str, Callable[[], Any]] = {
    "recovery_curve": lambda: recovery_curve(model, IMAGES, times=(1, 4), count=6),
    "basins": lambda: basins(model, IMAGES, [0.1], max_iterations=9),
    "basins of missing pixels": lambda: basins(model, IMAGES, shares=[0.1], max_iterations=9),
    "cycles": lambda: cycles(turned, IMAGES, max_iterations=9),
    "stability": lambda: stability(model, IMAGES),
    "harvest": lambda: harvest(model, (3, 4, 4), 3, members=IMAGES),
}


@pytest.mark.parametrize("name", CALLS)
def test_results_are_the_same_to_the_bit(name: str) -> None:
    expected = CALLS[name]()
    tensors = {field: value for field, value in vars(expected).items() if isinstance(value, Tensor)}
    assert tensors
    assert not any(value.is_inference() for value in tensors.values())
    for switch in ("autocast", "default dtype float64", "default device", "inference mode"):
        with SWITCHES[switch]():
            before = state()
            found = CALLS[name]()
            assert repr(found) == repr(expected)
            assert state() == before
        for field, value in tensors.items():
            torch.testing.assert_close(getattr(found, field), value, rtol=0, atol=0, equal_nan=True, msg=switch)

from __future__ import annotations

import socket

import pytest
import torch

from memrecon_fast.images.photographs import MIN_STD, make_photographs


def test_members_and_controls_are_distinct_photographs(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("this needs the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    members, controls = make_photographs(30, 20, size=16)
    assert members.shape == (30, 3, 16, 16)
    assert controls.shape == (20, 3, 16, 16)
    images = torch.cat([members, controls])
    assert images.dtype == torch.float32
    assert images.min() >= 0
    assert images.max() <= 1
    assert len(torch.unique(images.flatten(1), dim=0)) == 50
    assert images.mean(1).flatten(1).std(1).min() > 0.99 * MIN_STD  # of the brightness; not a plain wall


def test_they_are_a_function_of_the_seed() -> None:
    first, again, other = (make_photographs(10, 5, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])


def test_more_of_them_are_smaller_crops() -> None:
    members, controls = make_photographs(400, 200, size=8)
    assert len(torch.unique(torch.cat([members, controls]).flatten(1), dim=0)) == 600


def test_too_many_are_refused() -> None:
    with pytest.raises(ValueError, match=r"do not hold 200 distinct crops of 128×128"):
        make_photographs(100, 100, size=128)

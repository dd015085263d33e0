"""ρ, matched."""

from __future__ import annotations

import math

import torch

from memrecon_fast.reconstruction import compare


def test_inputs_are_matched_whatever_their_order_and_signs() -> None:
    truth = 2 * torch.eye(4).double()  # ‖x‖ = √d
    found = torch.stack([truth[2], -truth[0], truth[3], truth[1] + torch.tensor([0, 0, 0.2, 0])])
    compared = compare(truth, found)
    assert compared.index.tolist() == [1, 3, 0, 2]
    assert compared.flipped.tolist() == [True, False, False, False]
    torch.testing.assert_close(compared.distance, torch.tensor([2.0, 0.1, 0, 0]).double())
    assert compared.recovered == 2
    assert compared.error == (2 + compared.distance[1]) / 4
    up_to_sign = compare(truth, found, up_to_sign=True)
    assert up_to_sign.recovered == 3
    assert compare(truth, found[:2]).index.tolist() == [1, -1, 0, -1]
    assert compare(truth, found[:2]).distance[3] == math.sqrt(2)

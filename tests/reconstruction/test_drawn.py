"""V that is drawn again wherever it is needed is the same as V that is stored."""

from __future__ import annotations

import math

import pytest
import torch

from memrecon_fast.reconstruction import RandomFeatures, compare, reconstruct, save
from memrecon_fast.reconstruction.rows import Rows
from memrecon_fast.reconstruction.weights import Drawn
from tests.helpers.features import fitted


@pytest.mark.parametrize("activation", ["relu", "relu+tanh"])
def test_all_is_the_same_as_with_v_stored(activation: str) -> None:
    one = fitted(3, 20, 3 * 20 * 6)
    drawn = RandomFeatures.from_seed(360, 20, seed=5, activation=activation, generator="philox")
    stored = RandomFeatures(drawn.weights[:], activation)
    assert isinstance(drawn.weights, Drawn)
    assert drawn.weights[:].dtype == torch.float32
    theta = drawn.fit(one.inputs, one.labels)
    assert torch.equal(theta, stored.fit(one.inputs, one.labels))
    found, same = reconstruct(drawn, theta, 3), reconstruct(stored, theta, 3)
    assert compare(one.inputs, found.inputs).recovered == 3
    torch.testing.assert_close(found.inputs, same.inputs, rtol=1e-6, atol=1e-9)  # their scales differ by rounding


def test_the_number_of_inputs_is_found() -> None:
    one = fitted(2, 20, 400)
    model = RandomFeatures.from_seed(400, 20, generator="philox")
    assert len(reconstruct(model, model.fit(one.inputs, one.labels)).inputs) == 2


def test_one_input_whose_feature_is_linear_where_it_is_not_zero() -> None:
    one = fitted(1, 10, 100)
    model = RandomFeatures.from_seed(100, 10, generator="philox")
    found = reconstruct(model, model.fit(one.inputs, one.labels), 1)
    assert compare(one.inputs, found.inputs).error < 1e-9


def test_rows_are_the_same_in_every_block() -> None:
    weights = Drawn(70, 6, seed=2)
    assert torch.equal(weights[13:29], weights[:][13:29])
    rows = Rows(weights, torch.ones(70).double(), scale=math.sqrt(6)).first(31)
    assert torch.equal(torch.cat([block.weights for block in rows.blocks()]), weights[:31].double())


def test_what_is_not_stored_cannot_be_saved(tmp_path: object) -> None:
    model = RandomFeatures.from_seed(30, 4, generator="philox")
    with pytest.raises(ValueError, match="drawn from a seed"):
        save(model, torch.ones(30), f"{tmp_path}/model.safetensors")
    with pytest.raises(ValueError, match="generator must be one of 'torch', 'philox'"):
        RandomFeatures.from_seed(30, 4, generator="mersenne")

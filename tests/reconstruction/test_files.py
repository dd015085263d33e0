from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from memrecon_fast.reconstruction import Scaling, load, save
from tests.helpers.features import fitted


def test_a_model_is_read_as_it_was_saved(tmp_path: Path) -> None:
    one = fitted(2, 12, 60, activation="relu+tanh")
    scaling = Scaling("pixels", (0.5,), (0.25,))
    save(one.model, one.theta, tmp_path / "model.safetensors", (3, 2, 2), scaling)
    found = load(tmp_path / "model.safetensors")
    assert torch.equal(found.model.weights[:], one.model.weights[:])
    assert torch.equal(found.theta, one.theta)
    assert (found.model.activation, found.image_shape, found.scaling) == ("relu+tanh", (3, 2, 2), scaling)


def test_pictures_need_not_be(tmp_path: Path) -> None:
    one = fitted(2, 12, 60)
    save(one.model, one.theta, tmp_path / "model.safetensors")
    found = load(tmp_path / "model.safetensors")
    assert (found.image_shape, found.scaling) == (None, None)


def test_what_does_not_fit_is_not_saved(tmp_path: Path) -> None:
    one = fitted(2, 12, 60)
    with pytest.raises(ValueError, match="an entry for each of the 60 features"):
        save(one.model, one.theta[:-1], tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="of 12 numbers"):
        save(one.model, one.theta, tmp_path / "model.safetensors", (3, 2, 3))
    with pytest.raises(ValueError, match=r"must end in \.safetensors"):
        save(one.model, one.theta, tmp_path / "model.pt")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        (None, "is not a model of random features"),
        ({"memrecon_random_features": "[]"}, "is not a model of random features"),
        ({"memrecon_random_features": "{"}, "is not a model of random features"),
        ({"memrecon_random_features": "{}"}, "must have activation"),
        ({"memrecon_random_features": '{"activation": "sin"}'}, "activation"),
        ({"memrecon_random_features": '{"activation": "relu", "image_shape": [3, 2, 3]}'}, "of 12 numbers"),
        ({"memrecon_random_features": '{"activation": "relu", "scaling": {"name": "x"}}'}, "must have mean, std"),
    ],
)
def test_another_file_is_told(tmp_path: Path, metadata: dict[str, str] | None, message: str) -> None:
    path = tmp_path / "other.safetensors"
    save_file({"weights": torch.ones(5, 12), "theta": torch.ones(5)}, path, metadata)
    with pytest.raises(ValueError, match=message):
        load(path)


def test_a_file_without_theta_is_told(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_file({"weights": torch.ones(5, 12)}, path, {"memrecon_random_features": '{"activation": "relu"}'})
    with pytest.raises(ValueError, match="is not a model of random features"):
        load(path)

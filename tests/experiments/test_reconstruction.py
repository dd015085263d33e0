"""The experiments of reconstruction run, and say what they should."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from memrecon_fast import experiments
from memrecon_fast.experiments.experiment import Pictures, Row, Scale
from memrecon_fast.experiments.reconstruction.problems import fit, from_beside, noisy_linear, on_sphere, training_error
from memrecon_fast.experiments.running import make_plan, reproduce


def rows_of(name: str, cells: dict[str, dict[str, Any]], folder: Path) -> list[Row]:
    experiment = dataclasses.replace(experiments.find(name), scales={"small": Scale(cells, 0.1)})
    if experiment.pictures is not None:
        experiment = dataclasses.replace(experiment, pictures=Pictures(3, 0, 4))
    made = reproduce(make_plan(experiment), folder)
    assert {path.suffix for path in made.paths} >= {".png", ".svg", ".json", ".csv"}
    return made.rows


def test_the_law(tmp_path: Path) -> None:
    sizes = {"activation": "relu", "n": 2, "d": 12, "seeds": 2}
    cells = {
        "labels": {**sizes, "p": 1, "reconstruct": False},
        "few": {**sizes, "p": 30, "reconstruct": True},
        "many": {**sizes, "p": 120, "reconstruct": True},
    }
    labels, few, many = rows_of("reconstruction-law", cells, tmp_path)
    assert labels["training_error"] > 0.01
    assert labels["rho"] is None
    assert few["training_error"] < 1e-20
    assert few["rho"] is None  # refused: fewer parameters than unknowns
    assert (many["whole"], many["recovered"]) == (2, 1.0)
    assert many["rho"] < 1e-6
    assert many["outside"] < 1e-6
    assert many["rho_beside"] < 1e-6


def test_the_law_of_nets(tmp_path: Path) -> None:
    two_layers: dict[str, Any] = {"net": "two layers", "seeds": 2}
    residual: dict[str, Any] = {"net": "residual", "trained": "head", "n": 2, "size": 2, "blocks": 1, "seeds": 1}
    cells = {
        "labels": {**two_layers, "trained": "head", "n": 3, "size": 12, "width": 1},
        "head": {**two_layers, "trained": "head", "n": 2, "size": 12, "width": 240},
        "all": {**two_layers, "trained": "all", "n": 3, "size": 40, "width": 60},
        "residual, few": {**residual, "width": 4},
        "residual": {**residual, "width": 20},
    }
    labels, head, every, few, many = rows_of("reconstruction-nets", cells, tmp_path)
    assert labels["training_error"] > 0.01
    assert (labels["refused"], labels["rho"]) == (2, None)
    assert (head["whole"], head["recovered"], head["p_over_dn"]) == (2, 1.0, 10)
    assert head["rho"] < 1e-6
    assert every["p_over_dn"] == 0.5  # fewer parameters than unknowns, but the first layer was trained, too
    assert (every["certain"], every["whole"]) == (2, 2)
    assert every["rho"] < 1e-6
    assert every["moved"] > 0.01
    assert (few["p"], few["d"], few["refused"]) == (16, 12, 1)
    assert few["training_error"] < 1e-6
    assert (many["p"], many["whole"], many["moved"]) == (80, 1, 0)
    assert many["rho"] < 1e-6


def test_photographs(tmp_path: Path) -> None:
    cells = {
        "1n": {"parameters": "n", "ratio": 1.0, "seeds": 1, "size": 4},
        "5dn": {"parameters": "dn", "ratio": 5.0, "seeds": 1, "size": 4},
    }
    fitted, found = rows_of("reconstruction-photographs", cells, tmp_path)
    assert (fitted["p"], found["p"]) == (3, 720)
    assert fitted["rho"] is None
    assert (found["whole"], found["recovered"]) == (1, 1.0)


def test_with_fewer_features_than_labels_the_error_is_that_of_least_squares() -> None:
    inputs = on_sphere(6, 4, seed=0)
    problem = fit(inputs, noisy_linear(inputs, 0), 3, seed=0)
    features = problem.model.features(inputs)
    left = problem.labels - features @ torch.linalg.pinv(features) @ problem.labels
    assert training_error(problem) == pytest.approx(float(left.square().mean()), rel=1e-9)


def test_below_the_threshold_other_inputs_explain_as_well() -> None:
    inputs = on_sphere(3, 10, seed=1)
    error, left = from_beside(fit(inputs, noisy_linear(inputs, 1), 18, seed=1), seed=1)
    assert left < 1e-6
    assert error > 0.05


def test_noise_and_rounding(tmp_path: Path) -> None:
    sizes = {"n": 2, "d": 12, "seeds": 2}
    cells = {
        "none": {"what": "noise", "level": 0.0, **sizes},
        "some": {"what": "noise", "level": 0.01, **sizes},
        "half": {"what": "float16", "level": 0.0, **sizes},
    }
    none, some, half = rows_of("reconstruction-noise", cells, tmp_path)
    assert none["rho"] < 1e-8
    assert some["noise"] == pytest.approx(0.01)
    assert 1e-4 < some["rho"] < 0.05
    assert 1e-5 < half["noise"] < 1e-3
    assert (none["explained"], some["explained"], half["explained"]) == (2, 2, 2)


def test_a_classifier_gives_its_images_away(tmp_path: Path) -> None:
    cells: dict[str, dict[str, Any]] = {
        "sgd": {"width": 300, "epochs": 100},
        "adam": {"width": 300, "optimiser": "adam", "epochs": 5},
    }
    sgd, adam = rows_of("reconstruction-classifier", cells, tmp_path)
    assert (sgd["certain"], sgd["found"], sgd["accurate"]) == (True, 3, 3)
    assert adam["refused"]
    assert "Say how many there are" in adam["reason"]

"""Inputs of nets whose first layer was trained: all of them, exactly, from fewer parameters than the law asks for."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from memrecon_fast.reconstruction import Head, Reconstruction, TwoLayer, compare, from_states, reconstruct
from memrecon_fast.reconstruction.domain import FirstLayer
from memrecon_fast.reconstruction.units import Units, _are_apart
from memrecon_fast.results import Status
from tests.helpers.trained_nets import Net, by_sgd, random_inputs, trained


def found_in(net: Net, images: int | None = None) -> tuple[Head, Reconstruction]:
    shape = tuple(net.inputs.shape[1:])
    model, theta = from_states(net.module.eval(), net.states.trained, net.states.initial, shape)
    return model, reconstruct(model, theta, images)


@pytest.mark.parametrize("bias", [False, True])
def test_all_come_back_from_a_tenth_of_the_parameters_of_the_law(bias: bool) -> None:
    torch.manual_seed(0)
    n, d, p = 10, 200, 200  # p = 0.1·n·d
    net = trained(TwoLayer(d, p, bias=bias).double(), random_inputs(n, d))
    model, found = found_in(net)
    assert model.first is not None
    assert model.first.span is not None
    assert model.first.span.count == n
    assert found.certain
    assert found.status == Status.CONVERGED
    assert found.residual > 1e-2  # features moved: the truth does not explain θ, and need not
    assert found.moved > 0.1
    assert found.lengths_known == bias
    assert found.signs_known.all()
    assert compare(net.inputs, found.inputs).error < 1e-10  # of training in float64
    assert "certain" in repr(found)


def test_lengths_come_back_where_there_are_biases() -> None:
    torch.manual_seed(1)
    inputs = random_inputs(6, 30) * torch.linspace(0.5, 1.5, 6).double()[:, None]
    _, found = found_in(trained(TwoLayer(30, 300, bias=True).double(), inputs))
    assert found.certain
    assert compare(inputs, found.inputs).error < 1e-10


def test_a_deep_classifier_of_ones_own_trained_in_float32_by_batches_with_momentum() -> None:
    torch.manual_seed(2)
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 300), nn.ReLU(), nn.Linear(300, 50), nn.Tanh(), nn.Linear(50, 3))
    inputs = torch.randn(8, 1, 8, 8, generator=torch.Generator().manual_seed(3))
    net = by_sgd(module, inputs, torch.arange(8) % 3, batch=4, steps=150)
    _, found = found_in(net)
    assert found.certain
    assert found.inputs.shape == (8, 64)
    assert found.coefficients.shape == (8, 3)
    assert compare(inputs.flatten(1), found.inputs).error < 1e-4  # what rounding to float32 leaves


def test_adam_leaves_no_gap_and_nothing_is_claimed() -> None:
    torch.manual_seed(3)
    module = TwoLayer(40, 200, bias=True).double()
    initial = {name: value.clone() for name, value in module.state_dict().items()}
    inputs, optimiser = random_inputs(5, 40), torch.optim.Adam(module.parameters(), 1e-3)
    for _ in range(50):
        optimiser.zero_grad()
        nn.functional.mse_loss(module(inputs)[:, 0], torch.ones(5).double()).backward()
        optimiser.step()
    model, theta = from_states(module.eval(), module.state_dict(), initial, (40,))
    assert model.first is not None
    assert model.first.span is None
    with pytest.raises(ValueError, match="images must say so"):
        reconstruct(model, theta)


def test_a_span_of_a_few_dimensions_helps_where_units_are_never_inactive() -> None:
    """tanh: by variable projection, but in n dimensions instead of d, from fewer features than n·d."""
    torch.manual_seed(4)
    n, d, p = 4, 60, 150
    module = nn.Sequential(nn.Linear(d, p, bias=False), nn.Tanh(), nn.Linear(p, 1, bias=False)).double()
    with torch.no_grad():
        for layer, factor in ((0, 2.0), (2, 0.01)):
            module[layer].get_parameter("weight").mul_(factor)
    net = trained(module, random_inputs(n, d), size=0.01)
    model, found = found_in(net)
    assert not found.certain
    assert model.where.width == n
    assert found.residual < 2 * found.moved < 0.02
    assert compare(net.inputs, found.inputs, up_to_sign=True).error < 0.02  # the body moved a little


def test_no_span_is_seen_in_noise() -> None:
    weights = torch.randn(2, 50, 30, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert FirstLayer(weights[0], weights[1], None, None, 1e-7, True).span is None


@pytest.mark.parametrize(("alone", "told"), [(5, True), (4, False), (0, False)])
def test_an_input_that_too_few_units_tell_from_another_is_not_certain(alone: int, told: bool) -> None:
    """Units learn of one input, of both, or of the other alone: with r₁ + ε r₀ in place of r₁, as few zeros are lost as
    units learn of the first alone."""
    learned = torch.zeros(40, 2, dtype=torch.float64)
    learned[: alone + 20, 0] = 1.0
    learned[alone:, 1] = 1.0
    none = torch.zeros(40, 2, dtype=torch.float64)
    found = Units(learned, none, none, torch.ones(2).double(), torch.eye(2).double(), 1e-12, False)
    assert _are_apart(found, list(torch.eye(2).double())) == told

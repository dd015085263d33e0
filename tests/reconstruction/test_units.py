"""Inputs of nets whose first layer was trained: all of them, exactly, from fewer parameters than the law asks for."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

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
    with pytest.raises(ValueError, match="Say how many there are"):
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
    found = Units(learned, none, none, torch.ones(2).double(), torch.eye(2).double(), 1e-12, None)
    assert _are_apart(found, list(torch.eye(2).double())) == told


def by_two_rates(bias_rate: float, inputs: int = 8, units: int = 300) -> tuple[nn.Module, Tensor, dict[str, Tensor]]:
    """A net, its inputs and its first weights: biases were trained at so many times the rate of the weights."""
    torch.manual_seed(1)
    net = nn.Sequential(nn.Linear(100, units), nn.ReLU(), nn.Linear(units, 1))
    initial = {name: value.clone() for name, value in net.state_dict().items()}
    x = torch.randn(inputs, 100, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([1.0, -1.0]).repeat(inputs)[:inputs, None]
    groups: list[dict[str, Any]] = [
        {"params": [one for name, one in net.named_parameters() if name.endswith("weight")]},
        {"params": [one for name, one in net.named_parameters() if name.endswith("bias")], "lr": 0.05 * bias_rate},
    ]
    optimiser = torch.optim.SGD(groups, 0.05)
    for _ in range(300):
        optimiser.zero_grad()
        nn.functional.mse_loss(net(x), labels).backward()
        optimiser.step()
    return net.eval(), x, initial


@pytest.mark.parametrize("rate", [0.5, 2.0])
def test_biases_that_were_trained_at_another_rate_are_noticed_and_their_rate_can_be_said(rate: float) -> None:
    """Like Caffe's nets: all inputs would seem 1/rate times as long, with the same zeros."""
    net, x, initial = by_two_rates(rate)
    model, theta = from_states(net, net.state_dict(), initial, (100,))
    with pytest.raises(ValueError, match=f"at about {rate:.1f} times the rate of its weights"):
        reconstruct(model, theta)
    model, theta = from_states(net, net.state_dict(), initial, (100,), bias_rate=rate)
    found = reconstruct(model, theta)
    assert found.certain
    assert compare(x.double(), found.inputs).error < 1e-4


def test_with_biases_that_were_not_trained_nothing_is_certain() -> None:
    net, _, initial = by_two_rates(0.0, inputs=3)
    model, theta = from_states(net, net.state_dict(), initial, (100,))
    assert model.where.width == 3
    found = reconstruct(model, theta)
    assert not found.certain
    assert len(found.inputs) == 3


@pytest.mark.parametrize("bias", [False, True])
def test_a_single_input(bias: bool) -> None:
    torch.manual_seed(5)
    inputs = random_inputs(1, 30)
    _, found = found_in(trained(TwoLayer(30, 40, bias=bias).double(), inputs))
    assert found.certain
    assert compare(inputs, found.inputs).error < 1e-10


@pytest.mark.parametrize("images", [4, 7])
def test_the_number_that_the_layer_tells_counts_not_the_one_that_was_asked_for(images: int) -> None:
    """Where one of 7 images was there twice, 6 are found of them."""
    torch.manual_seed(1)
    inputs = random_inputs(6, 30)
    _, found = found_in(trained(TwoLayer(30, 300, bias=True).double(), inputs), images)
    assert found.certain
    assert len(found.inputs) == 6
    assert compare(inputs, found.inputs).error < 1e-10


@pytest.mark.parametrize("coarse", [torch.bfloat16, torch.float16])
def test_what_was_rounded_is_taken_for_that_whatever_it_is_stored_as(coarse: torch.dtype) -> None:
    net, _, initial = by_two_rates(1.0)
    after = net.state_dict()
    coarsely = [{name: one.to(coarse) for name, one in state.items()} for state in (after, initial)]
    as_stored = [{name: one.float() for name, one in state.items()} for state in coarsely]
    for states, expected in (((after, initial), torch.float32), (coarsely, coarse), (as_stored, coarse)):
        model, _ = from_states(net, states[0], states[1], (100,))
        assert model.first is not None
        assert model.first.rounding == torch.finfo(expected).eps

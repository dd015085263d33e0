"""Models from two state dicts, and what is refused."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from memrecon_fast.reconstruction import (
    ReconstructionSettings,
    ResidualNet,
    TwoLayer,
    compare,
    fit,
    from_states,
    initial_state,
    reconstruct,
)
from memrecon_fast.results import Status
from tests.helpers.trained_nets import random_inputs, trained


def test_two_layers_of_which_the_second_was_trained() -> None:
    torch.manual_seed(0)
    net = trained(TwoLayer(50, 5000).double(), random_inputs(10, 50), only="2")  # p = 10·n·d
    model, theta = from_states(net.module, net.states.trained, net.states.initial, (50,))
    assert torch.equal(theta, net.states.trained["2.weight"] - net.states.initial["2.weight"])
    assert model.initial is None  # the body stayed as it was
    assert model.first is None
    assert model.where.on_sphere
    found = reconstruct(model, theta, 10)
    assert found.residual < 1e-5
    assert found.moved == 0
    assert not found.lengths_known
    assert compare(net.inputs, found.inputs).error < 1e-6


def test_inputs_of_any_length_come_back_from_a_head_alone_where_there_are_biases() -> None:
    torch.manual_seed(1)
    inputs = random_inputs(3, 12) * torch.tensor([[0.6], [1.0], [1.4]]).double()
    net = trained(TwoLayer(12, 600, bias=True).double(), inputs, only="2")
    model, theta = from_states(net.module, net.states.trained, net.states.initial, (12,))
    assert not model.where.on_sphere
    found = reconstruct(model, theta, 3)
    assert found.lengths_known
    assert found.residual < 1e-5
    assert compare(inputs, found.inputs).error < 1e-5


def test_a_small_residual_net_of_which_all_was_trained() -> None:
    torch.manual_seed(2)
    n, side = 2, 4
    inputs = random_inputs(n, side**2).reshape(n, 1, side, side)
    module = ResidualNet(1, side, width=12, blocks=1).double()
    net = trained(module, inputs, size=0.1)
    model, theta = from_states(module, net.states.trained, net.states.initial, (1, side, side))
    assert model.where.on_sphere  # no biases: nothing is known of lengths
    found = reconstruct(model, theta, n, ReconstructionSettings(tolerance=0.02))
    assert 2 * found.moved > found.residual > 1e-5  # the body moved a little
    assert not found.certain
    assert compare(inputs.flatten(1), found.inputs).error < 0.02
    as_strict_as_ever = dataclasses.replace(found, status=Status.MAX_ITERATIONS)
    assert "explains θ in part" in repr(as_strict_as_ever)
    assert "does NOT explain" in repr(dataclasses.replace(as_strict_as_ever, residual=3 * found.moved))


def test_the_initial_state_is_that_of_the_seed_and_the_callers_generator_stays() -> None:
    before = torch.get_rng_state()
    found = initial_state(lambda: TwoLayer(4, 9), 7)
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(7)
    expected = TwoLayer(4, 9).state_dict()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_fit_reaches_the_loss_or_says_that_it_does_not() -> None:
    torch.manual_seed(3)
    inputs, labels = random_inputs(5, 10), torch.tensor([1.0, -1, 1, 1, -1]).double()
    net = TwoLayer(10, 100).double()
    states = fit(net, inputs, labels, only="2", loss=1e-7)
    assert states.loss <= 1e-7
    assert float((net(inputs)[:, 0] - labels).square().mean().detach()) <= 1e-7
    assert torch.equal(states.initial["0.weight"], states.trained["0.weight"])
    assert not torch.equal(states.initial["2.weight"], states.trained["2.weight"])
    with pytest.raises(ValueError, match="the loss is"):
        fit(TwoLayer(10, 2).double(), inputs, labels, loss=1e-7, most_steps=200)


class Scaled(nn.Module):
    """What it returns is not what its last linear layer makes."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.last = nn.Linear(6, 40), nn.Linear(40, 2)

    def forward(self, x: Tensor) -> Tensor:
        return torch.softmax(self.last(torch.relu(self.body(x))), dim=1)


def changed(state: dict[str, Tensor], by: float = 0.01) -> dict[str, Tensor]:
    return {name: value + by for name, value in state.items()}


def test_a_head_that_is_not_the_last_is_named() -> None:
    module = Scaled()
    states = changed(module.state_dict()), module.state_dict()
    with pytest.raises(ValueError, match=r"no linear layer makes the net's output as it is; .* one of last, body"):
        from_states(module, *states, (6,))
    with pytest.raises(ValueError, match="head must name a linear layer, not 'lst'; did you mean 'last'"):
        from_states(module, *states, (6,), head="lst")
    model, theta = from_states(module, *states, (6,), head="last")
    assert model.p == 40
    assert theta.shape == (2, 40)


WIDE = TwoLayer(20, 60, bias=True)
WIDE.load_state_dict(initial_state(lambda: TwoLayer(20, 60, bias=True), 4))
BATCHES = nn.Sequential(nn.Linear(4, 9), nn.BatchNorm1d(9), nn.Linear(9, 1))
DROPPED = nn.Sequential(nn.Linear(4, 9), nn.Dropout(0.5), nn.Linear(9, 1))


def without(state: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    return {key: value for key, value in state.items() if key != name}


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"initial": without(WIDE.state_dict(), "2.weight")}, ValueError, "the initial state lacks 2.weight"),
        ({"trained": {**WIDE.state_dict(), "3.weight": torch.ones(1)}}, ValueError, "the trained state has 3.weight"),
        (
            {"trained": {**WIDE.state_dict(), "0.weight": torch.ones(3, 3)}},
            ValueError,
            r"0.weight of the trained state is \(3, 3\), but \(60, 20\) in the net",
        ),
        ({"trained": changed(WIDE.state_dict(), torch.nan)}, ValueError, "0.weight of the trained state .* NaN"),
        ({"trained": WIDE.state_dict()}, ValueError, "are the same: nothing was learned"),
        (
            {"trained": {**WIDE.state_dict(), "0.weight": WIDE.state_dict()["0.weight"] + 0.01}},
            ValueError,
            "2.weight is the same in both states: the head learned nothing",
        ),
        ({"initial": initial_state(lambda: TwoLayer(20, 60, bias=True), 5)}, ValueError, "another seed or net"),
        ({"trained": [1]}, TypeError, "must be a dict of tensors"),
        ({"input_shape": (7,)}, ValueError, r"cannot be applied to inputs of shape \(7,\)"),
        ({"module": BATCHES}, ValueError, r"1 \(BatchNorm1d\) is in training mode, .*module.eval"),
        ({"module": DROPPED}, ValueError, r"1 \(Dropout\) is in training mode, .*at random.*module.eval"),
        ({"module": nn.Flatten()}, ValueError, "nothing was learned"),
        ({"module": "net"}, TypeError, "must be an nn.Module, not str"),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, Any], error: type[Exception], message: str) -> None:
    module = changes.get("module", WIDE)
    state = module.state_dict() if isinstance(module, nn.Module) else {}
    given = {
        "module": module,
        "trained": changed(state, 1e-4),
        "initial": state,
        "input_shape": (4,) if module is BATCHES or module is DROPPED else (20,),
        **changes,
    }
    with pytest.raises(error, match=message):
        from_states(**given)

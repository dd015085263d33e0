"""Bodies of nets: their Jacobian products, and inputs from what a head has learned."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from memrecon_fast.reconstruction import Head, RandomFeatures, compare, reconstruct
from memrecon_fast.reconstruction.projected import onto_sphere
from tests.reconstruction.test_even import random


def test_products_are_those_of_the_jacobian() -> None:
    torch.manual_seed(0)
    body = (
        nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(48, 20), nn.ReLU())
        .double()
        .eval()
    )
    head = Head(body, (1, 4, 4))
    inputs, steps, values = random(3, 16), random(3, 16, seed=1), random(3, 20, seed=2)
    assert torch.equal(head.features(inputs), body(inputs.view(3, 1, 4, 4)))
    for i in range(3):
        jacobian = torch.autograd.functional.jacobian(lambda x: body(x.view(1, 1, 4, 4))[0], inputs[i])
        torch.testing.assert_close(head.times(inputs, steps)[i], jacobian @ steps[i])
        torch.testing.assert_close(head.transposed_times(inputs, values)[i], jacobian.T @ values[i])
    assert all(parameter.grad is None for parameter in body.parameters())


def test_a_body_of_random_features_is_the_model_of_random_features() -> None:
    model = RandomFeatures.from_seed(60, 7, activation="relu+tanh")
    head = Head(lambda x: model.features(x) if not x.requires_grad else _relu_tanh(x @ model.weights[:].T), (7,))
    inputs, steps, values = random(3, 7), random(3, 7, seed=1), random(3, 60, seed=2)
    torch.testing.assert_close(head.features(inputs), model.features(inputs))
    torch.testing.assert_close(head.times(inputs, steps), model.times(inputs, steps))
    torch.testing.assert_close(head.transposed_times(inputs, values), model.transposed_times(inputs, values))


def _relu_tanh(x: Tensor) -> Tensor:
    return torch.relu(x) + torch.tanh(x)


def test_inputs_come_back_from_a_head_of_several_outputs_trained_by_gradient_descent() -> None:
    """Softmax and cross-entropy, a head that does not begin at 0: its change is in the span all the same."""
    torch.manual_seed(1)
    n, d, p = 4, 12, 400
    body = nn.Sequential(nn.Linear(d, p, bias=False), nn.Tanh()).double().eval()
    linear = nn.Linear(p, 3).double()
    initial = linear.weight.detach().clone()
    inputs, labels = onto_sphere(random(n, d, seed=3)), torch.tensor([0, 1, 2, 1])
    optimiser = torch.optim.SGD(linear.parameters(), 0.05)
    for _ in range(50):
        optimiser.zero_grad()
        nn.functional.cross_entropy(linear(body(inputs).detach()), labels).backward()
        optimiser.step()
    theta = linear.weight.detach() - initial
    assert theta.shape == (3, p)
    for images in (n, None):
        found = reconstruct(Head(body, (d,)), theta, images)
        assert found.inputs.shape == (n, d)
        assert found.coefficients.shape == (n, 3)
        assert not found.signs_known.any()  # tanh is odd: α and x change signs together
        assert found.residual < 1e-5
        assert found.passes > 0
        assert compare(inputs, found.inputs, up_to_sign=True).error < 1e-5


def test_inputs_come_back_from_a_convolutional_body_with_their_signs() -> None:
    torch.manual_seed(2)
    body = nn.Sequential(nn.Conv2d(1, 24, 3, padding=1), nn.ReLU(), nn.Flatten()).double().eval()
    head = Head(body, (1, 4, 4))
    inputs = onto_sphere(random(3, 16, seed=6))
    theta = torch.tensor([1.0, -2, 0.5]).double() @ head.features(inputs)  # 384 features
    found = reconstruct(head, theta, 3)
    assert found.coefficients.shape == (3,)
    assert found.signs_known.all()
    assert compare(inputs, found.inputs).error < 1e-5


def test_a_body_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="in training mode"):
        Head(nn.Sequential(nn.Linear(4, 9), nn.BatchNorm1d(9)).double(), (4,))
    with pytest.raises(TypeError, match="must be in float64"):
        Head(nn.Linear(4, 9).eval(), (4,))
    with pytest.raises(ValueError, match=r"features \(n, p\) of inputs \(n, 1, 2, 2\)"):
        Head(nn.Conv2d(1, 3, 1).double().eval(), (1, 2, 2))
    head = Head(nn.Linear(4, 30).double().eval(), (4,))
    with pytest.raises(ValueError, match="an entry for each of the 30 features"):
        reconstruct(head, torch.ones(2, 29), 2)

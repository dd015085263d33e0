"""The paper's nets, and their training by gradient descent to a small loss: shows the law.  Iurada et al.

Nothing here is special: any net that `from_states` takes will do.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from memrecon_fast.common.checks import check_integer, check_number

_FASTER, _SLOWER = 1.05, 0.5
_LEAST_RATE = 1e-12


class TwoLayer(nn.Sequential):
    """f(x) = W2 relu(W1 x), without biases; f(x) = W2 relu(W1 x + b1) + b2 with them. x (n, d), f (n, outputs)."""

    def __init__(self, d: int, width: int, outputs: int = 1, bias: bool = False) -> None:
        for name, value in (("d", d), ("width", width), ("outputs", outputs)):
            check_integer(name, value, low=1)
        super().__init__(nn.Linear(d, width, bias=bias), nn.ReLU(), nn.Linear(width, outputs, bias=bias))


class _Block(nn.Module):
    """x + two 3×3 convolutions of it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.second = nn.Conv2d(channels, channels, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.second(torch.relu(self.first(x))))


class ResidualNet(nn.Sequential):
    """A stem, residual blocks of two 3×3 convolutions, no normalisation, and a linear head without bias.

    x (n, channels, side, side), f (n, outputs); the head is given width·side² features.
    """

    def __init__(self, channels: int, side: int, width: int = 16, blocks: int = 4, outputs: int = 1) -> None:
        for name, value in (("channels", channels), ("side", side), ("width", width), ("outputs", outputs)):
            check_integer(name, value, low=1)
        check_integer("blocks", blocks, low=0)
        stem = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        head = nn.Linear(width * side**2, outputs, bias=False)
        super().__init__(stem, nn.ReLU(), *(_Block(width) for _ in range(blocks)), nn.Flatten(), head)


@dataclasses.dataclass(frozen=True, eq=False)
class Trained:
    """What `fit` made: two states of the net, as `from_states` takes them."""

    trained: dict[str, Tensor]
    initial: dict[str, Tensor]
    loss: float
    steps: int


def fit(
    net: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    only: str | None = None,
    loss: float = 1e-7,
    rate: float = 0.1,
    most_steps: int = 100_000,
) -> Trained:
    """Train the net in place, by gradient descent on the mean squared error of all inputs at once.

    inputs: (n, …), as the net takes them. labels: (n,) or (n, outputs). only: the name of the only module that is
    trained, for instance "2", the head of a `TwoLayer`; None: all of it. rate: that of the first step; it grows as long
    as the loss falls, and steps after which it rises are taken back.

    Raises ValueError where the loss is not reached in so many steps, or no step makes it smaller.
    """
    check_number("loss", loss, low=0, low_is_allowed=False)
    check_number("rate", rate, low=0, low_is_allowed=False)
    check_integer("most_steps", most_steps, low=1)
    labels = labels.to(inputs.dtype).reshape(len(inputs), -1)
    initial = {name: value.detach().clone() for name, value in net.state_dict().items()}
    weights = list((net if only is None else net.get_submodule(only)).parameters())
    now, slopes = _loss(net, inputs, labels, weights)
    for step in range(most_steps):
        if now <= loss:
            return Trained({name: value.clone() for name, value in net.state_dict().items()}, initial, now, step)
        with torch.no_grad():
            for weight, slope in zip(weights, slopes, strict=True):
                weight.sub_(slope, alpha=rate)
        then, next_slopes = _loss(net, inputs, labels, weights)
        if then < now:
            now, slopes, rate = then, next_slopes, _FASTER * rate
            continue
        with torch.no_grad():
            for weight, slope in zip(weights, slopes, strict=True):
                weight.add_(slope, alpha=rate)
        rate *= _SLOWER
        if rate < _LEAST_RATE:
            break
    raise ValueError(f"the loss is {now:.1e} after {step + 1} steps, not {loss:.1e}: more features, or other labels?")


def _loss(
    net: nn.Module, inputs: Tensor, labels: Tensor, weights: Sequence[Tensor]
) -> tuple[float, tuple[Tensor, ...]]:
    loss = nn.functional.mse_loss(net(inputs), labels)
    return float(loss.detach()), torch.autograd.grad(loss, weights)

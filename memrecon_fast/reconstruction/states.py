"""Nets of the user's own, from their state dicts before and after training: the features of the body, and θ.

The head is the last linear layer, whose output is that of the net. Its change is θ, the body after training makes the
features; the change of the first layer, where that is linear, may tell where the inputs lie (`domain`).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from memrecon_fast.common.checks import check_number, check_seed, suggestion
from memrecon_fast.reconstruction.domain import FirstLayer, domain_of
from memrecon_fast.reconstruction.head import Head

State = Mapping[str, Tensor]
_LEAST_LIKENESS = 0.1
"""Of the weights before and after training. Those of two seeds have 0 but for chance, which is much less."""
_ENOUGH_WEIGHTS = 1000
"""For chance to be much less."""


def from_states(
    module: nn.Module,
    trained: State,
    initial: State,
    input_shape: tuple[int, ...],
    head: str | None = None,
    bias_rate: float = 1.0,
) -> tuple[Head, Tensor]:
    """The model and θ, float64 (outputs, p), that `reconstruct` takes.

    module: the net, of any weights; it is copied. Dropout and batch norm in it must be in the mode in which it was
    trained, eval mode (`module.eval()`): otherwise features were none of one image alone. trained, initial: its state
    dicts after and before training, of floating-point numbers; see `initial_state`. input_shape: of one input. head:
    the name of the last linear layer, where it cannot be found: where the net does not return what it makes. bias_rate:
    the learning rate of the biases of the first layer over that of its weights, > 0: lengths of inputs rest on it.

    Exact where the body was not trained; where it was, θ lies in the span of the features after training only nearly.

    Raises TypeError or ValueError for anything that does not fit.
    """
    check_number("bias_rate", bias_rate, low=0, low_is_allowed=False)
    _check_layers(module)
    trained, initial = _checked(module, trained, "trained"), _checked(module, initial, "initial")
    _check_pair(trained, initial)
    net, before = (_of(module, state) for state in (trained, initial))
    probe = torch.randn(2, *input_shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    name = _head_of(net, probe, head)
    theta = trained[f"{name}.weight"].double() - initial[f"{name}.weight"].double()
    if not theta.any():
        raise ValueError(f"{name}.weight is the same in both states: the head learned nothing, and θ is its change")
    body = _Body(net, name)
    first = _first_layer(net, probe, trained, initial, bias_rate)
    domain = domain_of(first, probe[0].numel(), _is_homogeneous(body, probe))
    moved = any(not torch.equal(trained[key], initial[key]) for key in trained if not key.startswith(f"{name}."))
    return Head(body, tuple(input_shape), domain, _Body(before, name) if moved else None, first), theta


def initial_state(factory: Callable[[], nn.Module], seed: int) -> dict[str, Tensor]:
    """What `torch.manual_seed(seed); factory().state_dict()` gives, in a process that has made nothing else of chance
    in between, on the CPU; the state of the caller's generator stays as it is."""
    check_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return {name: value.detach().clone() for name, value in factory().state_dict().items()}


class _Body(nn.Module):
    """What the head of a net is given."""

    def __init__(self, net: nn.Module, head: str) -> None:
        super().__init__()
        self.net, self.head = net, head
        self.eval()

    def forward(self, inputs: Tensor) -> Tensor:
        """(n, *input_shape) → (n, p)."""
        found: list[Tensor] = []
        handle = self.net.get_submodule(self.head).register_forward_pre_hook(lambda _, given: found.append(given[0]))
        try:
            self.net(inputs)
        finally:
            handle.remove()
        return found[0]


def _check_layers(module: nn.Module) -> None:
    if not isinstance(module, nn.Module):
        raise TypeError(f"the net must be an nn.Module, not {type(module).__name__}")
    for name, layer in module.named_modules():
        if not layer.training:
            continue
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            raise ValueError(
                f"{name} ({type(layer).__name__}) is in training mode, in which an image's features depend on the "
                "others of its batch: no image can be found by itself. Nets that were trained with it in eval mode "
                "must be in eval mode here, too: module.eval()"
            )
        if isinstance(layer, nn.modules.dropout._DropoutNd) and layer.p > 0:
            raise ValueError(
                f"{name} ({type(layer).__name__}) is in training mode, in which features are dropped at random: θ is "
                "in the span of no features that are known. Nets that were trained with it in eval mode must be in "
                "eval mode here, too: module.eval()"
            )


def _checked(module: nn.Module, state: State, name: str) -> dict[str, Tensor]:
    """On the CPU, all of it there, of the right shapes, finite."""
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise TypeError(f"the {name} state must be a dict of tensors, as state_dict() makes it")
    expected = module.state_dict()
    if missing := [key for key in expected if key not in state]:
        raise ValueError(f"the {name} state lacks {_some(missing)}, which the net has")
    if more := [key for key in state if key not in expected]:
        raise ValueError(f"the {name} state has {_some(more)}, which the net has not{suggestion(more[0], expected)}")
    for key, value in state.items():
        if value.shape != expected[key].shape:
            raise ValueError(
                f"{key} of the {name} state is {tuple(value.shape)}, but {tuple(expected[key].shape)} in the net"
            )
        if not value.isfinite().all():
            raise ValueError(f"{key} of the {name} state has entries that are NaN or infinite")
    return {key: value.detach().cpu() for key, value in state.items()}


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _check_pair(trained: dict[str, Tensor], initial: dict[str, Tensor]) -> None:
    """Of the same training: weights do not move as far as to another seed's."""
    pairs = [(after.double(), initial[name].double()) for name, after in trained.items() if after.is_floating_point()]
    if all(torch.equal(after, before) for after, before in pairs):
        raise ValueError("the trained and the initial state are the same: nothing was learned")
    large = [pair for pair in pairs if pair[0].dim() > 1 and pair[0].numel() >= _ENOUGH_WEIGHTS and pair[1].any()]
    likeness = [
        float(torch.nn.functional.cosine_similarity(after.flatten(), before.flatten(), dim=0))
        for after, before in large
    ]
    if likeness and max(likeness) < _LEAST_LIKENESS:
        raise ValueError(
            f"the initial state is not of this training, but of another seed or net: its weights are not like the "
            f"trained ones (a cosine of at most {max(likeness):.2f})"
        )


def _of(module: nn.Module, state: dict[str, Tensor]) -> nn.Module:
    """A copy with these weights, in float64 and eval mode, not to be trained."""
    net = copy.deepcopy(module).cpu().double().eval().requires_grad_(False)
    net.load_state_dict(state)
    return net


def _linear_layers(net: nn.Module, probe: Tensor) -> tuple[dict[str, tuple[Tensor, Tensor]], Tensor]:
    """Input and output of every linear layer, by name; and the output of the net."""
    seen: dict[str, tuple[Tensor, Tensor]] = {}

    def watch(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def remember(_: nn.Module, given: tuple[Tensor, ...], made: Tensor) -> None:
            seen[name] = given[0].clone(), made.clone()

        return remember

    handles = [
        layer.register_forward_hook(watch(name)) for name, layer in net.named_modules() if isinstance(layer, nn.Linear)
    ]
    try:
        output = net(probe)
    except (RuntimeError, ValueError, TypeError) as error:
        reason = str(error).strip().splitlines()
        raise ValueError(
            f"the net cannot be applied to inputs of shape {tuple(probe.shape[1:])}: {reason[0] if reason else error}"
        ) from error
    finally:
        for handle in handles:
            handle.remove()
    return seen, output


def _head_of(net: nn.Module, probe: Tensor, head: str | None) -> str:
    seen, output = _linear_layers(net, probe)
    if not seen:
        raise ValueError("the net has no linear layer, whose change could be explained")
    if head is None:
        if not isinstance(output, Tensor):
            raise ValueError(
                f"the net must return a tensor, not {type(output).__name__}; or name its last linear layer as the "
                f"head, one of {_some(list(seen)[::-1])}"
            )
        found = [name for name, (_, made) in seen.items() if torch.equal(made.flatten(), output.flatten())]
        if not found:
            raise ValueError(
                "no linear layer makes the net's output as it is; name the last one as the head, one of "
                f"{_some(list(seen)[::-1])}"
            )
        head = found[-1]
    elif head not in seen:
        raise ValueError(f"head must name a linear layer, not {head!r}{suggestion(head, seen)}")
    given = seen[head][0]
    if given.dim() != 2 or len(given) != len(probe):
        raise ValueError(f"{head} must be given features (n, p), not {tuple(given.shape)} of {len(probe)} inputs")
    return head


def _first_layer(
    net: nn.Module, probe: Tensor, trained: dict[str, Tensor], initial: dict[str, Tensor], bias_rate: float
) -> FirstLayer | None:
    """The linear layer that is given the inputs themselves, if there is one, and it was trained."""
    seen, _ = _linear_layers(net, probe)
    found = [name for name, (given, _) in seen.items() if torch.equal(given.flatten(), probe.flatten())]
    if len(found) != 1 or torch.equal(trained[f"{found[0]}.weight"], initial[f"{found[0]}.weight"]):
        return None
    name = found[0]
    weights = [state[f"{name}.weight"] for state in (trained, initial)]
    biases = [state[f"{name}.bias"].double() if f"{name}.bias" in state else None for state in (trained, initial)]
    rounding = max(map(_rounding, weights))
    cuts_off = _cuts_off(net, name, probe)
    return FirstLayer(weights[0].double(), weights[1].double(), biases[0], biases[1], rounding, cuts_off, bias_rate)


def _rounding(weight: Tensor) -> float:
    """Of the numbers, whatever they are stored as: a net in float32 may have been filled from a file of bfloat16."""
    for coarse in (torch.bfloat16, torch.float16):
        if torch.equal(weight, weight.to(coarse).to(weight.dtype)):
            return torch.finfo(coarse).eps
    return torch.finfo(weight.dtype).eps


def _cuts_off(net: nn.Module, layer: str, probe: Tensor) -> bool:
    """Whether the net's output stays the same where what the layer makes is made still more negative."""
    once = net(probe)
    handle = net.get_submodule(layer).register_forward_hook(lambda _, __, made: torch.where(made < 0, 3 * made, made))
    try:
        return torch.equal(once, net(probe))
    finally:
        handle.remove()


def _is_homogeneous(body: Callable[[Tensor], Tensor], probe: Tensor) -> bool:
    """φ(c x) = c^m φ(x) for c > 0: lengths of inputs and their coefficients cannot be told apart."""
    with torch.no_grad():
        once, twice = body(probe), body(2 * probe)
    factor = twice.norm() / once.norm()
    return bool(torch.allclose(twice, factor * once, rtol=1e-9, atol=1e-9 * float(once.abs().max())))

"""Copies of a model in which some layers compute in another way; they share its weights."""

from __future__ import annotations

import copy
from collections.abc import Mapping

from torch import Tensor, nn

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def copy_sharing(model: nn.Module, instead: Mapping[int, Tensor] | None = None) -> nn.Module:
    """A copy of a model with the parameters and buffers of the model itself.

    instead: in place of some of them, by `id`. Raises whatever the model's parts raise that cannot be copied: one keeps
    an activation, say, or a lock.
    """
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    copied: nn.Module = copy.deepcopy(model, memo={**shared, **(instead or {})})
    return copied


def has_hooks(module: nn.Module) -> bool:
    """Whether something else is called before or after its forward."""
    return any(getattr(module, hooks) for hooks in _HOOKS)


def has_own_forward(module: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether a module of this kind of torch's computes something else than that does."""
    return type(module).forward is not kind.forward or "forward" in vars(module)

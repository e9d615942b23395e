"""What decides the gradient of somebody's own model besides its weights: code, settings, modes."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from torch import nn

from dpbench.protocol import Loss
from dpbench.system import behaviour, digest
from dpbench.victim.outputs import SingleLogitLoss

Code = frozenset[type | Callable[..., Any]]


def code_behind(model: nn.Module, loss: Loss) -> Code:
    """The classes of the model's modules, the functions hooked to them, and the loss."""
    hooks = [
        hook
        for module in model.modules()
        for kept in (module._forward_hooks, module._forward_pre_hooks)
        for hook in kept.values()
    ]
    functions = (code for each in (loss, *hooks) for code in _code(each))
    return frozenset({*(type(module) for module in model.modules()), *functions})


def state(model: nn.Module, loss: Loss) -> str:
    """A hash of the model's weights, layout, settings and modes, and of what the loss is made with.

    Example:
        >>> model = nn.Linear(2, 2)
        >>> before = state(model, nn.CrossEntropyLoss())
        >>> before == state(model.requires_grad_(False), nn.CrossEntropyLoss())
        False
        >>> before == state(model.requires_grad_(True), nn.CrossEntropyLoss(label_smoothing=0.1))
        False
    """
    hooks = [each for each in model._forward_hooks.values() if hasattr(each, "__dataclass_fields__")]
    return digest.described(
        {
            "model": behaviour.of_module(model),
            "outputs": repr(hooks),
            "loss": behaviour.of_function(loss),
        }
    )


def _code(given: Any) -> list[type | Callable[..., Any]]:
    if isinstance(given, functools.partial):
        return _code(given.func)
    if isinstance(given, SingleLogitLoss):
        return [SingleLogitLoss, *_code(given.loss)]
    given = getattr(given, "__func__", given)
    return [given] if inspect.isfunction(given) else [type(given)]

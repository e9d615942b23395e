"""What decides the gradient of somebody's own model besides its weights: code, settings, modes."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from torch import nn

from dpbench.protocol import Loss
from dpbench.system import digest
from dpbench.victim.outputs import SingleLogitLoss

_PLAIN = (bool, int, float, str, type(None))
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
            "weights": digest.tensors(model.state_dict()),
            "layout": repr(model),  # strides, groups, shares of dropout, ...
            "trained": [name for name, p in model.named_parameters() if p.requires_grad],
            "training": [name for name, module in model.named_modules() if module.training],
            "outputs": repr(hooks),
            "loss": _settings(loss),
        }
    )


def _code(given: Any) -> list[type | Callable[..., Any]]:
    if isinstance(given, functools.partial):
        return _code(given.func)
    if isinstance(given, SingleLogitLoss):
        return [SingleLogitLoss, *_code(given.loss)]
    given = getattr(given, "__func__", given)
    return [given] if inspect.isfunction(given) else [type(given)]


def _settings(given: Any) -> list[Any]:
    """Plain values that a loss was made with, and the tensors it holds."""
    if isinstance(given, functools.partial):
        return [repr(given.args), repr(given.keywords), *_settings(given.func)]
    if isinstance(given, SingleLogitLoss):
        return [given.flat, given.form, *_settings(given.loss)]
    held = vars(given) if hasattr(given, "__dict__") else {}
    found = [[name, repr(value)] for name, value in sorted(held.items()) if isinstance(value, _PLAIN)]
    return [*found, digest.tensors(given.state_dict())] if isinstance(given, nn.Module) else found

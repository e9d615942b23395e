"""The copy of a victim that every defence works on, in one mode and one precision for all of them."""

from __future__ import annotations

import copy
import copyreg
from collections import OrderedDict
from typing import Any

from torch import nn

from dpbench.protocol import InputError

_ATOMS = (type(None), bool, int, float, str)
_CONTAINERS = (dict, OrderedDict, set, list)


def untouched(model: nn.Module) -> nn.Module:
    """A copy to work on, in the same modes: forward passes in training mode would change the victim.

    Raises:
        InputError: for a model that cannot be copied.
    """
    try:
        states = {module: _state(module) for module in model.modules()}
        if any(state is None for state in states.values()):
            return copy.deepcopy(model)
        # what deepcopy does, but without its search for a way to copy each of two dozen plain attributes
        memo: dict[int, Any] = {id(module): type(module).__new__(type(module)) for module in states}
        for module, state in reversed(states.items()):  # inner ones first
            memo[id(module)].__setstate__({name: _copied(value, memo) for name, value in state.items()})
        return memo[id(model)]
    except (RuntimeError, TypeError) as error:
        reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise InputError(
            f"The model cannot be copied, as it has to be to leave it unchanged: remove what copy.deepcopy "
            f"refuses ({reason})."
        ) from error


def _state(module: nn.Module) -> dict[str, Any] | None:
    """The attributes of a module; None where there is more to copying it than copying these."""
    if hasattr(module, "__deepcopy__") or type(module) in copyreg.dispatch_table:
        return None
    make, given, state, *more = module.__reduce_ex__(4)
    ordinary = make is copyreg.__newobj__ and given == (type(module),) and type(state) is dict
    return state if ordinary and more == [None, None] else None


def _copied(value: Any, memo: dict[int, Any]) -> Any:
    """A deep copy; `memo` is that of `copy.deepcopy`."""
    kind = type(value)
    if kind in _ATOMS:
        return value
    if kind in _CONTAINERS and not value:
        return memo.setdefault(id(value), kind())
    return copy.deepcopy(value, memo)


def in_release_mode(model: nn.Module) -> nn.Module:
    """A copy of `model` in the mode that every defence, `none` included, takes gradients in.

    Dropout is off: a gradient under a random mask could be compared neither with another defence's nor by an
    attacker who does not know the mask. Only modules with buffers of their own, as batch norm with its
    statistics, keep the mode they are in.

    Raises:
        InputError: for a model that cannot be copied.
    """
    model = untouched(model)
    keeping = [m for m in model.modules() if m.training and any(True for _ in m.buffers(recurse=False))]
    model.eval()
    for module in keeping:
        module.training = True
    return model

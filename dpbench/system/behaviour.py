"""A hash of what somebody's model or loss does: of its values, as its code is hashed in `source`."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from dpbench.system import digest, source

_PLAIN = (bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device)


def of_module(model: nn.Module) -> str:
    """The hash of a model's parameters, buffers, structure, modes and plain attributes, not of its code.

    Two models of the same classes and weights may differ in the slope of an activation, or in whether batch
    norm is in training mode.

    Example:
        >>> of_module(nn.LeakyReLU(0.1)) == of_module(nn.LeakyReLU(0.2))
        False
    """
    held = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    attributes = {name: _attributes(module) for name, module in model.named_modules()}
    trained = sorted(name for name, p in model.named_parameters() if p.requires_grad)
    described = {"tensors": digest.tensors(held), "structure": str(model), "attributes": str(attributes)}
    return digest.described(described | {"trained": trained})


def of_function(function: Callable[..., Any]) -> str:
    """The hash of what a callable computes: its code, and what is bound to it.

    Example:
        >>> of_function(nn.CrossEntropyLoss()) == of_function(nn.CrossEntropyLoss(label_smoothing=0.1))
        False
    """
    if isinstance(function, functools.partial):
        bound = str(_value((function.args, function.keywords)))
        return digest.described({"function": of_function(function.func), "bound": bound})
    if isinstance(function, nn.Module):
        kinds = {type(module) for module in function.modules()}
        return digest.described({"module": of_module(function), "code": source.digest(*kinds)})
    if inspect.ismethod(function):
        own = function.__self__
        values = of_module(own) if isinstance(own, nn.Module) else str(_attributes(own))
        return digest.described({"values": values, "code": of_function(function.__func__)})
    if hasattr(function, "__qualname__"):
        code = source.digest(function)
        return digest.described({"code": code, "made": str(_made(function))})
    return digest.described({"code": source.digest(type(function)), "values": str(_attributes(function))})


def _made(function: Callable[..., Any]) -> list[Any]:
    """What tells a function apart from others of its file, and from itself under other surroundings."""
    if not inspect.isfunction(function):
        return [function.__qualname__]
    cells = [cell.cell_contents for cell in function.__closure__ or ()]
    values = _value([function.__defaults__, function.__kwdefaults__, cells])
    # functions that are made within others, or without a name, share their qualified name
    local = "<" in function.__qualname__
    code = function.__code__
    constants = [each for each in code.co_consts if isinstance(each, _PLAIN)]
    written = [code.co_code.hex(), code.co_names, constants] if local else []
    return [function.__qualname__, values, written]


def _attributes(thing: object) -> dict[str, Any]:
    held = sorted(getattr(thing, "__dict__", {}).items())
    return {name: _value(value) for name, value in held if not name.startswith("_")}


def _value(value: Any) -> Any:
    """What is written the same in every process."""
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, Tensor):
        return digest.tensors({"": value})
    if isinstance(value, Mapping):
        return {str(name): _value(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_value(each) for each in value]
    if isinstance(value, set | frozenset):
        return sorted(str(_value(each)) for each in value)
    if isinstance(value, nn.Module):
        return of_module(value)
    if isinstance(value, functools.partial):
        return of_function(value)
    named = value if hasattr(value, "__qualname__") else type(value)
    return f"{named.__module__}.{named.__qualname__}"

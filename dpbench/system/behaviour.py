"""A hash of what somebody's model or loss does: of its values, as its code is hashed in `source`.

Values are written as they are. An object is described by its class and by what pickle would keep of it: its
attributes, private ones too, its slots, the bytes of an array. What pickle refuses is described by its
attributes, and where it has none (a lock, a weak reference, an object of a compiled library) by its `repr`
without addresses: two of these with the same `repr` are taken for the same.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Mapping
from itertools import islice
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from dpbench.system import digest, source

_PLAIN = (bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device)
_SEEN_TO = frozenset(vars(nn.Module())) - {"training"}
"""Attributes of any module that PyTorch keeps for itself: tensors, inner modules and hooks."""
NEAR = 20
"""How many objects tell the members of a set apart."""
_CHANCE = re.compile(r"\b0x[0-9a-fA-F]+|___torch_mangle_\d+")
"""What differs from process to process in a text: addresses, and how PyTorch numbers scripted classes."""


def of_module(model: nn.Module) -> str:
    """The hash of a model's parameters, buffers, structure, modes and attributes, not of its code.

    Two models of the same classes and weights may differ in the slope of an activation, or in whether batch
    norm is in training mode.

    Example:
        >>> of_module(nn.LeakyReLU(0.1)) == of_module(nn.LeakyReLU(0.2))
        False
    """
    found = _Description(model)
    return found.hashed(found.of_module(model))


def of_function(function: Callable[..., Any]) -> str:
    """The hash of what a callable computes: its code, and what is bound to it.

    Example:
        >>> of_function(nn.CrossEntropyLoss()) == of_function(nn.CrossEntropyLoss(label_smoothing=0.1))
        False
    """
    found = _Description(function)
    return found.hashed(found.of_function(function))


class _Description:
    """Writes values the same in every process. Objects are numbered as they are met: they may form rings."""

    def __init__(self, start: object) -> None:
        self._objects = [start]  # kept, as a new object may get the address of one that is gone
        self._numbers = {id(start): 0}

    def hashed(self, start: Mapping[str, Any]) -> str:
        """The hash of the description of what was started with, and of all objects that it leads to."""
        met = islice(self._objects, 1, None)  # describing one may add others
        objects = [str(self._object(each)) for each in met]
        return digest.described({**start, "objects": objects} if objects else start)

    def of_module(self, model: nn.Module) -> dict[str, Any]:
        held = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        attributes = {name: self._attributes(module) for name, module in model.named_modules()}
        trained = sorted(name for name, p in model.named_parameters() if p.requires_grad)
        described = {"tensors": digest.tensors(held), "structure": str(model), "attributes": str(attributes)}
        return described | {"trained": trained}

    def of_function(self, function: Callable[..., Any]) -> dict[str, Any]:
        if isinstance(function, functools.partial):
            bound = str(self._value((function.args, function.keywords)))
            return {"function": digest.described(self.of_function(function.func)), "bound": bound}
        if isinstance(function, nn.Module):
            kinds = {type(module) for module in function.modules()}
            return {"module": digest.described(self.of_module(function)), "code": source.digest(*kinds)}
        if inspect.ismethod(function):
            code = digest.described(self.of_function(function.__func__))
            return {"values": str(self._value(function.__self__)), "code": code}
        if inspect.isfunction(function) or inspect.isclass(function):
            return {"code": source.digest(function), "made": str(self._made(function))}
        return {"kind": _named(type(function)), "state": str(self._state(function))}

    def _made(self, function: Callable[..., Any]) -> list[Any]:
        """What tells a function apart from others of its file, and from itself under other surroundings."""
        if not inspect.isfunction(function):
            return [function.__qualname__]
        cells = [cell.cell_contents for cell in function.__closure__ or ()]
        values = [self._value(each) for each in (function.__defaults__, function.__kwdefaults__)]
        values.append([self._value(each) for each in cells])
        # functions that are made within others, or without a name, share their qualified name
        local = "<" in function.__qualname__
        code = function.__code__
        constants = [each for each in code.co_consts if isinstance(each, _PLAIN)]
        written = [code.co_code.hex(), code.co_names, constants] if local else []
        return [function.__qualname__, values, written]

    def _attributes(self, thing: object) -> dict[str, Any]:
        held = sorted(vars(thing).items())
        if isinstance(thing, nn.Module):
            # what PyTorch's own layers keep for themselves follows from the rest
            theirs = type(thing).__module__.startswith("torch.")
            held = [(k, v) for k, v in held if k not in _SEEN_TO and not (theirs and k.startswith("_"))]
        if isinstance(thing, torch.jit.ScriptModule):  # there is no other code behind it
            held.append(
                ("script", _CHANCE.sub("", thing._c.dump_to_str(code=True, attrs=True, params=False)))
            )
        return {name: self._value(value) for name, value in held}

    def _value(self, value: Any) -> Any:
        """A plain value, or the number of an object that is described by itself."""
        if isinstance(value, bytes):
            return digest.content(value)
        if isinstance(value, _PLAIN):
            return value
        if isinstance(value, Tensor):
            return digest.tensors({"": value})
        if isinstance(value, type | ModuleType):
            return _named(value)
        if type(value) is tuple:  # one that is written in a file may be shared or not
            return [self._value(each) for each in value]
        if id(value) not in self._numbers:
            self._numbers[id(value)] = len(self._objects)
            self._objects.append(value)
        return f"object {self._numbers[id(value)]}"

    def _object(self, value: Any) -> Any:
        if type(value) is list:
            return [self._value(each) for each in value]
        if type(value) is dict:
            return {str(self._value(name)): self._value(each) for name, each in value.items()}
        if isinstance(value, set | frozenset):
            return [self._value(each) for each in sorted(value, key=_order)]
        return self.of_function(value)

    def _state(self, thing: object) -> Any:
        """What tells an object apart from others of its class."""
        try:
            kept = thing.__reduce_ex__(4)
        except Exception:  # whatever its author raises
            held = self._attributes(thing) if hasattr(thing, "__dict__") else {}
            return held or _CHANCE.sub("", repr(thing))
        if isinstance(kept, str):
            return kept
        made, given, state, items, pairs = (*kept, None, None, None)[:5]
        return [self._value(each) for each in (made, given, state, [*(items or ())], dict(pairs or ()))]


def _order(value: Any) -> str:
    """A text to sort the members of a set by: the value, and the first `NEAR` objects it leads to."""
    found = _Description(None)
    texts = [str(found._value(value))]
    for each in islice(found._objects, 1, NEAR + 1):
        # a set may lead back to the one that is sorted
        texts.append(str(len(each) if isinstance(each, set | frozenset) else found._object(each)))
    return str(texts)


@functools.cache
def _named(thing: type | ModuleType) -> str:
    """The name of a class or a module, and the hash of the class's code."""
    if isinstance(thing, ModuleType):
        return thing.__name__
    return f"{thing.__module__}.{thing.__qualname__} {source.digest(thing)}"

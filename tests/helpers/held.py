"""Attributes of every kind that somebody's module may hold."""

from __future__ import annotations

from collections import OrderedDict
from types import SimpleNamespace

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F


class Held(nn.Module):
    """A module with an attribute of any kind."""

    def __init__(self, value, name="_value"):
        super().__init__()
        setattr(self, name, value)


class Slotted:
    __slots__ = ("amount",)

    def __init__(self, amount):
        self.amount = amount


class Unpicklable:
    def __init__(self, amount):
        self.amount = amount

    def __reduce_ex__(self, protocol):
        raise TypeError("not this one")


class Compiled(Slotted):
    """As an object of a compiled library: its `repr` is all there is to see."""

    __slots__ = ()
    __reduce_ex__ = Unpicklable.__reduce_ex__

    def __repr__(self):
        return f"<Compiled {self.amount} at {hex(id(self))}>"


def ring(amount):
    node = SimpleNamespace(amount=amount, inner=[Slotted(amount)])
    node.inner.append(node)
    return node


def deep(amount):
    for _ in range(5000):
        amount = [amount]
    return amount


def parent(amount):
    module = Held(amount)
    module._children = [Held(module)]
    return module._children[0]


VALUES = [
    lambda amount: amount,
    lambda amount: SimpleNamespace(slope=amount),
    lambda amount: np.array([amount]),
    lambda amount: np.array([{"slope": amount}], dtype=object),
    lambda amount: {"slopes": [amount, (amount, {amount})]},
    lambda amount: OrderedDict(slope=amount),
    lambda amount: torch.tensor([amount]),
    lambda amount: bytes(str(amount), "ascii"),
    lambda amount: lambda x: x * amount,
    lambda amount: F.relu if amount == 0.1 else F.elu,
    lambda amount: torch.relu if amount == 0.1 else torch.tanh,
    lambda amount: nn.ReLU if amount == 0.1 else nn.ELU,
    lambda amount: nn.LeakyReLU(amount),
    lambda amount: {Slotted(amount), Slotted(1.0), F.relu, (1, 2)},
    Slotted,
    Unpicklable,
    Compiled,
    ring,
    deep,
    parent,
]

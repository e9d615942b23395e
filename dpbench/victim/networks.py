"""Victim networks by name: the registry, and how one is built.

Per-sample gradients can be taken of all of them: every block is out of place, every norm per sample. They
take RGB images in [0, 1] and normalise inside.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import nn

from dpbench.data.channels import CIFAR10_MEAN, CIFAR10_STD
from dpbench.protocol import InputError, Registry
from dpbench.victim.given import factory, is_given
from dpbench.victim.layers import NORMS, FrozenBatchNorm2d, Normalise, norm_layer

__all__ = [
    "NORMS",
    "FrozenBatchNorm2d",
    "Normalise",
    "build",
    "models",
    "network",
    "norm_layer",
    "usual_norm",
]

Constructor = TypeVar("Constructor", bound=Callable[..., nn.Module])


class Models(Registry[Callable[..., nn.Module]]):
    """Constructors by name; those that users give (`file.py:factory`) are known by what they are called."""

    def __getitem__(self, name: str) -> Callable[..., nn.Module]:
        if name.endswith(".py"):
            raise InputError(f"The model {name} is a file: add what makes the model in it, {name}:FUNCTION.")
        return factory(name) if is_given(name) else super().__getitem__(name)

    def __contains__(self, name: object) -> bool:
        return (isinstance(name, str) and is_given(name)) or super().__contains__(name)


models = Models("model", group="dpbench.models")
"""Constructors `(num_classes, norm, size, mean, std) -> network`."""


def network(name: str, norm: str = "frozen-bn") -> Callable[[Constructor], Constructor]:
    """Decorator that registers a network: a class, or a function that makes one.

    It is called as `(num_classes, norm, size, mean, std)`: outputs, one of `NORMS`, pixels a side, and what
    `Normalise` takes. The last layer of the network is `fc`, an `nn.Linear`. It may have `normalise`, a
    `Normalise`, which files of weights can set, and a method `suit(tensors, facts)`, which is called before
    such a file is loaded, to change whatever its weights were made with.

    Args:
        name: what users type.
        norm: the norm it has unless another is asked for.

    Example:
        >>> @network("one-layer", norm="none")
        ... class Linear(nn.Module):
        ...     def __init__(self, num_classes, norm, size, mean, std):
        ...         super().__init__()
        ...         self.normalise, self.fc = Normalise(mean, std), nn.Linear(3 * size**2, num_classes)
        ...
        ...     def forward(self, images):
        ...         return self.fc(self.normalise(images).flatten(1))
        >>> build("one-layer", num_classes=4, size=8)(torch.zeros(2, 3, 8, 8)).shape
        torch.Size([2, 4])
        >>> del models._items["one-layer"]

    Raises:
        TypeError: for a name that is no word.
    """
    models.check_word(name, "network")

    def add(constructor: Constructor) -> Constructor:
        constructor.usual_norm = norm
        models.add(name, constructor)
        return constructor

    return add


def usual_norm(name: str) -> str:
    """The norm a network has unless another is asked for.

    Raises:
        InputError: for an unknown network.
    """
    return getattr(models[name], "usual_norm", "frozen-bn")


def build(
    name: str,
    num_classes: int = 10,
    norm: str | None = None,
    size: int = 32,
    mean: Sequence[float] = CIFAR10_MEAN,
    std: Sequence[float] = CIFAR10_STD,
    seed: int = 0,
) -> nn.Module:
    """A victim network with freshly drawn weights, in evaluation mode.

    Args:
        name: one of `models`.
        num_classes: outputs of the last layer.
        norm: one of `NORMS`; None takes the network's usual one.
        size: height and width of the images, pixels.
        mean: per-channel mean of the images in [0, 1], taken out inside the network.
        std: per-channel standard deviation, likewise.
        seed: decides the weights; the caller's random state is left as it was.

    Raises:
        InputError: for an unknown network or norm, or a network that cannot have that norm.

    Example:
        >>> sum(p.numel() for p in build("resnet20").parameters())
        272474
    """
    constructor = models[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = constructor(num_classes, norm or usual_norm(name), size, mean, std)
    return model.eval()

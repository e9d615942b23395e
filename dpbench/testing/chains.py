"""Chains with values for all that they require, a small victim, and releases of its gradient."""

from __future__ import annotations

from dataclasses import MISSING
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import defenses
from defenses import Aggregator, Chain, Defense
from dpbench.protocol import Release, parameters
from dpbench.testing.claims import same
from dpbench.testing.ranges import inside

SIZES = (3, 11)
"""Of batches: so few that each image's gradient is taken alone, and so many that they are taken together."""


def chains(kind: type[Defense]) -> tuple[str, ...]:
    """The defence alone, and before and behind others."""
    name = kind.name
    return (
        (name, f"{name}+prune") if issubclass(kind, Aggregator) else (name, f"clip+{name}", f"{name}+prune")
    )


def required(name: str) -> dict[str, Any]:
    """A value for each parameter of the chain that has no default."""
    return {
        key: inside(declared)
        for stage in defenses.stages(name)
        for key, declared in parameters(stage).items()
        if declared.default is MISSING
    }


def created(name: str, **given: Any) -> Chain:
    """The chain with values for all that it requires."""
    return defenses.create(name, **required(name) | given)


def batch(size: int) -> tuple[Tensor, Tensor]:
    """Images [size, 3, 8, 8] and labels of five classes."""
    return torch.rand(size, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(size) % 5


def victim() -> nn.Sequential:
    """A convolution, group norm, an activation in place, dropout and a linear layer."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.ReLU(inplace=True), nn.Flatten(), nn.Dropout(0.5)
        )
        model.append(nn.Linear(144, 5))
    return model


def released(
    model: nn.Module, name: str, seed: int = 0, size: int = 3, count: int = 1, **given: Any
) -> list[Release]:
    """`count` releases of a batch of `size`."""
    images, labels = batch(size)
    return created(name, **given).releases(model, F.cross_entropy, images, labels, seed=seed, count=count)


def equal(first: Release, second: Release) -> bool:
    """Whether two releases hold the same gradients."""
    return same(first.gradients, second.gradients)

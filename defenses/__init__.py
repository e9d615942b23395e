"""Defences a client applies to its gradient before it is released.

`create("dp", noise_multiplier=1.0)` gives a `Chain`; stages chain with `+`, as in `clip+prune`.
A package of your own adds a defence with the `defense` decorator and an entry point in `dpbench.defenses`.
"""

from __future__ import annotations

import inspect

from defenses import dp_sgd, noise, pruning  # noqa: F401  (registers them)
from defenses.base import Aggregator, Chain, Defense, PostProcessor, defense, defenses_registry
from dpbench.protocol import Guarantee, InputError

__all__ = [
    "Aggregator",
    "Chain",
    "Defense",
    "PostProcessor",
    "create",
    "defense",
    "defenses_registry",
    "names",
]

NONE = "none"


def names() -> tuple[str, ...]:
    """All that `create` knows, `none` first."""
    return (NONE, *defenses_registry)


def create(name: str, **parameters: float | str | Guarantee | None) -> Chain:
    """The defence called `name`, ready to release gradients.

    Args:
        name: one of `names()`, or several joined by `+`, applied from left to right.
        **parameters: of all stages together; each takes those it knows (`max_grad_norm`, `noise_multiplier`,
            `guarantee`, `noise_std`, `prune_ratio`, `prune_scope`).

    Raises:
        InputError: for an unknown name, a chain in an impossible order, or a parameter outside its range.
        TypeError: for a parameter that no stage takes, or one that is missing.

    Example:
        >>> create("clip+prune", max_grad_norm=1.0, prune_ratio=0.9).stages
        (Clip(max_grad_norm=1.0), Prune(prune_ratio=0.9, prune_scope='layer'))
        >>> create("none").stages
        ()
    """
    parts = name.split("+")
    stages, used = [], set()
    for part in parts if parts != [NONE] else ():
        if part == NONE and len(parts) > 1:
            raise InputError(f"none is no stage of a chain; leave it out of {name}.")
        if part not in defenses_registry:
            raise InputError(f"Unknown defense {part!r}; known: {', '.join(names())}.")
        cls = defenses_registry[part]
        known = parameters.keys() & inspect.signature(cls).parameters.keys()
        stages.append(cls(**{key: parameters[key] for key in known}))
        used |= known
    if unknown := parameters.keys() - used:
        raise TypeError(f"Defense {name} takes no {', '.join(sorted(unknown))}.")
    return Chain(tuple(stages))

"""Defences a client applies to its gradient before it is released.

`create("dp", noise_multiplier=1.0)` gives a `Chain`; stages chain with `+`, as in `clip+prune`.
A package of your own adds a defence with the `defense` decorator and an entry point in `dpbench.defenses`.
"""

from __future__ import annotations

from dataclasses import MISSING, fields
from typing import Any

from defenses import (  # noqa: F401  (registers them)
    censor,
    dp_ftrl,
    dp_sgd,
    local_dp,
    noise,
    outpost,
    percentile,
    precode,
    pruning,
    quantisation,
    soteria,
    sparse_vector,
    topk,
)
from defenses.base import Aggregator, Defense, PostProcessor, defense, defenses_registry
from defenses.chain import NONE, Chain, check_order
from defenses.copies import in_release_mode
from dpbench.protocol import InputError, meant

__all__ = [
    "Aggregator",
    "Chain",
    "Defense",
    "PostProcessor",
    "create",
    "defense",
    "defenses_registry",
    "in_release_mode",
    "names",
    "stages",
]


_BUDGET = ("eps", "eps_scope", "delta", "train_size", "train_batch_size", "epochs", "accountant")
"""What a run computes the noise of a defence with a guarantee from; no defence takes them itself."""


def names() -> tuple[str, ...]:
    """All that `create` knows, `none` first."""
    return (NONE, *defenses_registry)


def stages(name: str) -> tuple[type[Defense], ...]:
    """The classes of the stages of the defence called `name`, in order; empty for `none`.

    Raises:
        InputError: for an unknown name, or a chain in an impossible order.

    Example:
        >>> [stage.__name__ for stage in stages("dp+prune")]
        ['DPSGD', 'Prune']
    """
    parts = name.split("+")
    if parts == [NONE]:
        return ()
    if NONE in parts:
        raise InputError(f"none is no stage of a chain; leave it out of {name}.")
    for part in parts:
        if part not in defenses_registry:
            raise InputError(f"Unknown defense {part!r}{meant(part, names())}; known: {', '.join(names())}.")
    found = tuple(defenses_registry[part] for part in parts)
    check_order(found)
    return found


def create(name: str, **parameters: Any) -> Chain:
    """The defence called `name`, ready to release gradients.

    Args:
        name: one of `names()`, or several joined by `+`, applied from left to right.
        **parameters: of all stages together; each takes those it knows.

    Raises:
        InputError: for an unknown name, a chain in an impossible order, a parameter that no stage takes or
            that is outside its range, or a required one that is missing.

    Example:
        >>> create("clip+prune", max_grad_norm=2.0).stages
        (Clip(max_grad_norm=2.0, unit='record'), Prune(prune_ratio=0.9, prune_scope='layer'))
        >>> create("none").stages
        ()
    """
    classes = stages(name)
    taken = [{field.name: field for field in fields(cls) if field.init} for cls in classes]
    known = list(dict.fromkeys(name for each in taken for name in each))
    if unknown := sorted(parameters.keys() - set(known)):
        raise InputError(f"Defense {name} does not take {_quoted(unknown)}: {_advice(name, known, unknown)}.")
    for cls, each in zip(classes, taken, strict=True):
        required = [n for n, f in each.items() if f.default is MISSING and f.default_factory is MISSING]
        if missing := [n for n in required if n not in parameters]:
            raise InputError(f"Defense {cls.name} needs a value of {_quoted(missing)}: give one.")
    return Chain(
        tuple(
            cls(**{n: parameters[n] for n in each if n in parameters})
            for cls, each in zip(classes, taken, strict=True)
        )
    )


def _advice(name: str, known: list[str], unknown: list[str]) -> str:
    """What to write in place of the parameters that the defence does not take."""
    if "guarantee" in known and (budget := [each for each in _BUDGET if each in unknown]):
        return (
            f"give `noise_multiplier` here, or let a run compute it from a budget, as in "
            f'benchmark(..., defense="{name}", {budget[0]}=...)'
        )
    # a run makes the guarantee, whoever creates a defence gives its noise
    listed = [each for each in known if each != "guarantee"]
    return f"it takes {_quoted(listed)}" if listed else "it takes no parameters"


def _quoted(names: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)

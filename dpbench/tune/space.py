"""What is searched: ranges and choices, from an attack's declarations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from attacks import Attack
from dpbench.cell.spec import Plain
from dpbench.protocol import InputError, Parameter, meant, parameters

DECADE = 10
"""From this ratio of its ends on a range is searched by orders of magnitude."""


@dataclass(frozen=True)
class Range:
    """A number between two ends, both included; `log` where each order of magnitude is as likely."""

    low: float
    high: float
    log: bool
    whole: bool


@dataclass(frozen=True)
class Choice:
    """One of several values."""

    values: tuple[Plain, ...]


Space = Mapping[str, Range | Choice]


def space(attack: type[Attack], asked: Sequence[str] = ()) -> dict[str, Range | Choice]:
    """The space of an attack's parameters.

    Args:
        attack: the class.
        asked: names of its parameters: numbers with a declared range, words and truth values. None stands for
            all numbers with a declared range.

    Raises:
        InputError: where there is no such parameter, or nothing to search.

    Example:
        >>> from attacks.inverting_gradients import InvertingGradients
        >>> space(InvertingGradients, ["learning_rate"])
        {'learning_rate': Range(low=0.02, high=1.0, log=True, whole=False)}
    """
    known = parameters(attack)
    for name in asked:
        if name not in known:
            raise InputError(f"{attack.name} has no parameter {name!r}{meant(name, known)}.")
    found = {
        name: dimension
        for name, declared in known.items()
        if (name in asked or (not asked and declared.tuning))
        and (dimension := _dimension(declared)) is not None
    }
    if missing := [name for name in asked if name not in found]:
        raise InputError(
            f"{missing[0]} of {attack.name} has no range that could be searched: its declaration needs "
            "`tuning`."
        )
    if not found:
        raise InputError(f"No parameter of {attack.name} has a declared range: name some as `parameters`.")
    return found


def described(searched: Space) -> dict[str, dict[str, object]]:
    """In plain values, for a file."""
    return {
        name: {"values": list(each.values)}
        if isinstance(each, Choice)
        else {"low": each.low, "high": each.high, "log": each.log}
        for name, each in searched.items()
    }


def _dimension(declared: Parameter) -> Range | Choice | None:
    if declared.kind is bool:
        return Choice((True, False))
    if declared.choices:
        return Choice(declared.choices)
    if declared.tuning is None:
        return None
    low, high = declared.tuning
    return Range(low, high, low > 0 and high >= DECADE * low, declared.kind is int)

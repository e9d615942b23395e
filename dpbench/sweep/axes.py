"""Everything a sweep may be asked for: its own options, and the parameters of every registered part.

Those of attacks, defences and threat models are collected from their declarations, so that a new part needs
no line here.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import attacks
import defenses
from dpbench.cell.parts import defence_parameters
from dpbench.cell.threats import threat_models
from dpbench.protocol import InputError, Parameter, parameters
from dpbench.sweep.option import ATTACKS, DEFENCES, EACH_ITS_OWN, FIRST, GROUPS, MOST_USED, Option
from dpbench.sweep.own_options import OWN


def options() -> dict[str, Option]:
    """Every option by name, in the order of the help.

    Raises:
        InputError: for a part whose parameter has the name of an option of another meaning.
    """
    found = {each.name: each for each in OWN}
    for group, parts in ((DEFENCES, _defence_parts()), (ATTACKS, _attack_parts())):
        for declared, hint in merged(parts):
            if declared.name in found:
                raise InputError(
                    f"A part declares `{declared.name}`, which is an option of every sweep: give it another "
                    "name."
                )
            found[declared.name] = Option(declared, EACH_ITS_OWN, True, group, hint=hint)
    first = {name: replace(found[name], group=FIRST) for name in MOST_USED}
    found = first | {name: each for name, each in found.items() if name not in first}
    return {name: each for group in GROUPS for name, each in found.items() if each.group == group}


def changed(less: Container[str], defaults: Mapping[str, Any], hints: Mapping[str, str]) -> dict[str, Option]:
    """The options of a command that is built on sweeps: theirs without `less`, some with other words."""
    return {
        name: replace(each, default=defaults.get(name, each.default), hint=hints.get(name, each.hint))
        for name, each in options().items()
        if name not in less
    }


def _defence_parts() -> dict[str, Mapping[str, Parameter]]:
    return {name: defence_parameters(name) for name in defenses.defenses_registry}


def _attack_parts() -> dict[str, Mapping[str, Parameter]]:
    threats = {name: parameters(part) for name, part in threat_models.items()}
    return {name: parameters(part) for name, part in attacks.attacks.items()} | threats


def merged(parts: Mapping[str, Mapping[str, Parameter]]) -> Iterator[tuple[Parameter, str]]:
    """Every parameter that some of the parts take, once, and what the help says of its defaults."""
    seen: set[str] = set()
    for taken in parts.values():
        for name, declared in taken.items():
            if name not in seen:
                seen.add(name)
                yield declared, _defaults(name, parts)


def _defaults(name: str, parts: Mapping[str, Mapping[str, Parameter]]) -> str:
    """Which parts take a parameter, and what it is unless given: `gradinversion: tuned`."""
    by_default: dict[str, list[str]] = {}
    for part, taken in parts.items():
        if name in taken:
            default = taken[name].default if taken[name].has_default else "none, give one"
            by_default.setdefault(_said(default), []).append(part)
    return "; ".join(f"{_named(names)}: {default}" for default, names in by_default.items())


def _named(names: Iterable[str]) -> str:
    names = list(names)
    return "every threat model" if set(names) == set(threat_models) else ", ".join(names)


def _said(value: Any) -> str:
    if value is None:
        return "its own"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)

"""What is attacked at which noise: fixed before anything is measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dpbench.data import Dataset
from dpbench.decide.choices import Choice
from dpbench.frontier.certified import certified_sigma
from dpbench.protocol import InputError

SETS = {
    "honest": ("lmmse", "inverting-gradients"),
    "informed": ("prior-aware",),
    "malicious-linear": ("analytic",),
}
"""The attacks of each threat model. `peel` is none of them: it needs exact gradients, and under noise it
hands over to the same search."""
WITHOUT_OTHERS = {"honest": ("inverting-gradients",), "informed": ("prior-aware",)}
"""Likewise for data that brings no images but those attacked, which nothing can be learnt from."""
ITERATIONS = 100
"""Of a search, the same at every noise level and without a defence."""
LEAST, EVEN = 0.01, 6
"""The smallest noise multiplier, at which attacks do as well as without a defence, and how many levels there
are up to the largest."""
BEYOND = 1.1
"""The largest level, in units of the certified frontier at prior 0.1."""
NEAR = 1.3
"""Factor between two levels below which the second would tell nothing new."""


def levels(chosen: Sequence[Choice]) -> tuple[float, ...]:
    """Noise multipliers, ascending: those of the choices, and others evenly in the logarithm.

    They reach from where noise hardly matters to where no attacker can gain much. Of the even ones, those
    close to a choice are left out.

    Args:
        chosen: at least one choice.
    """
    own = {choice.noise_multiplier for choice in chosen}
    certified = certified_sigma()
    even = [float(f"{sigma:.2g}") for sigma in np.geomspace(LEAST, BEYOND * certified, EVEN)]
    kept = {sigma for sigma in even if not any(max(sigma / each, each / sigma) < NEAR for each in own)}
    if max(own) < certified:
        kept.add(even[-1])
    return tuple(sorted(own | kept))


def attackers(
    data: Dataset, attack: tuple[str, ...] = (), threat_model: tuple[str, ...] = ()
) -> tuple[dict[str, Any], str]:
    """The attacks of a frontier, and a sentence about threat models that are left out.

    Args:
        data: what is attacked.
        attack: asked for by name; without any, the set of each threat model.
        threat_model: asked for; without any, all that have a set.

    Returns:
        Keywords of `dpbench.frontier.frontier`, and the sentence, empty where nothing is left out.

    Raises:
        InputError: for a threat model that has no set on these data.
    """
    given: dict[str, Any] = {"iterations": ITERATIONS}
    if attack:
        return given | {"attack": attack, "threat_model": threat_model}, ""
    learns = data.statistics is not None and data.public is not None
    sets = SETS if learns else WITHOUT_OTHERS
    for name in threat_model:
        if name not in sets:
            raise InputError(
                f"There is no set of attacks for `threat_model` {name} on {data.name}: give one of "
                f"{', '.join(sets)}, or name the `attack`."
            )
    if not learns:
        given["preset"] = "paper"
    lacking = [] if threat_model else [name for name in SETS if name not in sets]
    note = f"{', '.join(lacking)} is left out: its server needs public images like those of {data.name}."
    names = threat_model or tuple(sets)
    return given | {"attack": tuple(each for name in names for each in sets[name])}, note if lacking else ""

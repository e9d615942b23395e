"""Values inside and outside the declared range of a parameter."""

from __future__ import annotations

import math
from dataclasses import MISSING

from dpbench.protocol import InputError, Parameter


def outside(declared: Parameter) -> list[object]:
    """Values that are no number of this kind, and the nearest ones beyond each end of the range."""
    if declared.choices:
        return ["neither of them"]
    if declared.kind not in (int, float):
        return [object()]
    step = (lambda x, to: x + (1 if to > 0 else -1)) if declared.kind is int else math.nextafter
    found = [math.nan, math.inf, "many", True, declared.above, declared.below]
    found += [None if declared.at_least is None else step(declared.at_least, -math.inf)]
    found += [None if declared.at_most is None else step(declared.at_most, math.inf)]
    return [value for value in found if value is not None]


def inside(declared: Parameter) -> object:
    """A value that a parameter may have: its default, or a number in its range, or its first choice."""
    if declared.default is not MISSING:
        return declared.default
    if declared.choices:
        return declared.choices[0]
    if declared.kind in (int, float):
        for value in (1, 0.5, 2, 100, 0, -1):
            try:
                return declared.checked(declared.kind(value))
            except InputError:
                continue
    return declared.kind()


def other(declared: Parameter) -> object:
    """A value inside the range that is not the default; the default where there is no other nearby."""
    number = declared.default if isinstance(declared.default, int | float) else None
    if declared.choices:
        near = declared.choices
    elif declared.kind is bool:
        near = (not declared.default,)
    elif declared.kind is int:
        near = ((number or 1) + 1, (number or 1) - 1)
    elif declared.kind is float:
        near = (number / 2 if number else 0.5, 1.0)
    else:
        near = ("other", "another")
    return next((value for value in near if value != number and _fits(declared, value)), declared.default)


def _fits(declared: Parameter, value: object) -> bool:
    try:
        return declared.checked(value) != declared.default
    except InputError:
        return False

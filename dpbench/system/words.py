"""Numbers of things, and several things, in sentences."""

from __future__ import annotations

from collections.abc import Sequence

SHOWN = 4
"""Settings that are all named; of more, the first and the last."""


def counted(number: float, noun: str, spec: str = ",", plural: str = "") -> str:
    """A number and what it counts, one of which is no plural.

    Args:
        number: of things, 0 or more.
        noun: in the singular.
        spec: format of the number.
        plural: the noun with an s unless given.

    Example:
        >>> counted(1, "step"), counted(2000, "batch", plural="batches"), counted(0.5, "epoch", "g")
        ('1 step', '2,000 batches', '0.5 epochs')
    """
    return f"{number:{spec}} {noun if number == 1 else plural or f'{noun}s'}"


def joined(words: Sequence[str]) -> str:
    """All of them in a row, the last behind an "and".

    Example:
        >>> joined(["a", "b", "c"]), joined(["a"])
        ('a, b and c', 'a')
    """
    return " and ".join(filter(None, (", ".join(words[:-1]), *words[-1:])))


def several(settings: Sequence[str]) -> str:
    """All of them, or, of more than `SHOWN` in an order, the first and the last.

    Example:
        >>> several(["a", "b", "c", "d", "e"])
        'a to e, 5 settings in all,'
    """
    if len(settings) <= SHOWN:
        return joined(settings)
    return f"{settings[0]} to {settings[-1]}, {len(settings)} settings in all,"

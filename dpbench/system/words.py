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


def per_cent(share: float, places: int = 0) -> str:
    """A share in per cent, to as many more places as keep it from reading as none or all where it is not.

    Args:
        share: of 1.
        places: behind the point, at least.

    Example:
        >>> per_cent(0.5), per_cent(0.996), per_cent(0.0004, 1), per_cent(1.0), per_cent(0.0)
        ('50', '99.6', '0.04', '100', '0')
    """
    value = 100 * share
    while round(value, places) in (0, 100) and value not in (0, 100):
        places += 1
    return f"{value:.{places}f}"


def joined(words: Sequence[str]) -> str:
    """All of them in a row, the last behind an "and".

    Example:
        >>> joined(["a", "b", "c"]), joined(["a"])
        ('a, b and c', 'a')
    """
    return " and ".join(filter(None, (", ".join(words[:-1]), *words[-1:])))


def several(settings: Sequence[str], *, gaps: bool = False) -> str:
    """All of them, or, of more than `SHOWN` in an order, the first and the last.

    Args:
        settings: in words.
        gaps: others lie between them, of which something else is said.

    Example:
        >>> several(["a", "b", "c", "d", "e"]), several(["a", "b", "d", "e", "f"], gaps=True)
        ('a to e, 5 settings in all,', 'a, f and 3 more settings')
    """
    if len(settings) <= SHOWN:
        return joined(settings)
    if gaps:
        return f"{settings[0]}, {settings[-1]} and {len(settings) - 2} more settings"
    return f"{settings[0]} to {settings[-1]}, {len(settings)} settings in all,"

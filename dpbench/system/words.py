"""Numbers of things in sentences."""

from __future__ import annotations


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

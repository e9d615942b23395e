"""Whether values of 16 bits have so many: radiographs mostly have 10, 12 or 14, and would be nearly black."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dpbench.data.decode import brightest
from dpbench.protocol import InputError

DARK = 0.25
"""Share of white that some pixel of 16-bit images reaches; 14 bits reach less."""
LOOKED_AT = 200
"""Files that are decoded at most to find such a pixel; mostly the first has one."""


def check_depth(share: float, what: str, instead: str) -> None:
    """Raises InputError where images are too dark to be of 16 bits.

    Args:
        share: of white, what the brightest pixel has; images that are black are left alone.
        what: images to name in the message.
        instead: what to do about it.

    Example:
        >>> check_depth(0.9, "these", "do nothing")
        >>> check_depth(0, "these", "do nothing")
    """
    high = round(share * 65535)
    if 0 < share < DARK:
        raise InputError(
            f"{what} have values of 16 bits and reach no further than {high:,} of 65,535, as those of "
            f"{high.bit_length()} bits do: they would be taken for nearly black ones. {instead}"
        )


def check_files(files: Sequence[Path], folder: str) -> None:
    """`check_depth` of greyscale files of 16 bits, all together; `LOOKED_AT` of them, evenly spread."""
    share = 0.0
    for file in files[:: -(-len(files) // LOOKED_AT) or 1]:
        share = max(share, brightest(file))
        if share >= DARK:
            return
    check_depth(
        share,
        f"The greyscale images of {folder}",
        "Save them as 8-bit images, divided by the largest value that they can have.",
    )

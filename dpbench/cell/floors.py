"""What can be had without the gradient of the attacked images: rows beside every attack."""

from __future__ import annotations

from enum import StrEnum


class Floor(StrEnum):
    """A guess that needs no gradient of these images.

    `MEAN_IMAGE` and `CONSTANT_IMAGE` belong to a batch. `NOISE_GRADIENT` (the attack, fed noise) and `START`
    (what the attack set out from) belong to an attack.
    """

    MEAN_IMAGE = "mean-image"
    CONSTANT_IMAGE = "constant-image"
    NOISE_GRADIENT = "noise-gradient"
    START = "start"

    @property
    def title(self) -> str:
        """What the results' column `attack` calls it."""
        return f"floor:{self}"


OF_A_BATCH = (Floor.MEAN_IMAGE, Floor.CONSTANT_IMAGE)

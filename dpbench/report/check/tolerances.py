"""How far a figure may be from the stored one.

On the same machine, with the same packages and the same code, every digit is equal: seeds decide all that is
random. Elsewhere sums are taken in another order. What follows directly from images, weights and settings
then differs in the sixth digit or so. A search multiplies such differences: over hundreds of iterations two
searches that began alike end in different images of about the same quality. So single images of a search are
held loosely, and the mean over many is held by an interval that narrows with their number.
"""

from __future__ import annotations

DIRECT = 1e-3
"""Of what takes no search: absolute (dB, shares) or relative, whichever is larger. float32 keeps seven
digits; this leaves four for badly conditioned sums."""
TRIALS = 0.02
"""Of an informed attacker's shares: one of 50 trials may be so close that rounding decides it."""
SEARCHED = {"psnr": 3.0, "psnr_floor": 3.0, "ssim": 0.2, "lpips": 0.25, "lpips_floor": 0.25, "fft2d": 0.03}
"""Of one image of a search: twice the most by which 60 results differed between the engines `eager` and
`compiled` (docs/sweeps.md). Other columns of a search are compared by their means only."""
CEILING = 60.0
"""PSNR in dB that counts at most: above it the difference from the original is itself rounding."""
CONFIDENCE = 0.9999
"""Of the interval that a mean difference has to leave: a suite has hundreds of them, and none may fail by
chance."""
LEAST = 5
"""Batches from which on a mean is judged."""


def of_one(column: str, searched: bool) -> float | None:
    """How far one row's value may be from the stored one; None where only means are compared."""
    if column.startswith(("success", "membership")) and not column.endswith("_bound"):
        return TRIALS
    return SEARCHED.get(column) if searched else DIRECT

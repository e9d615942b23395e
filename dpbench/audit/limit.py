"""How many releases fit into a time limit."""

from __future__ import annotations

import time

from torch import Tensor

from dpbench.audit.releases import CHUNK, Source

TRIED = (10, CHUNK)
"""Releases that are timed; the larger number only where the smaller one is quick."""
QUICK = 0.01
"""Share of the time limit that a trial may take before a larger one is left out."""
MAKING = 0.8
"""Share of the time limit for making releases; the rest is for what is computed from them."""


def affordable(source: Source, images: Tensor, seconds: float, canaries: int) -> int:
    """Releases for each canary that can be made within `seconds`, by the speed of a few.

    The number is fixed before any release of the audit is looked at, so it does not favour any outcome.

    Args:
        source: of its own, as what it makes is thrown away.
        images: a batch, [B, *SHAPE].
        seconds: for the whole audit.
        canaries: how many.
    """
    for count in TRIED:
        begun = time.perf_counter()
        for _ in source.take(images, count):
            pass
        spent = time.perf_counter() - begun
        if spent > QUICK * seconds:
            break
    return int(MAKING * seconds * count / max(spent, 1e-9) / canaries)

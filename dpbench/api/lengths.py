"""Whether the gradients that a step clipped are those of its images, which noise cannot hide."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from dpbench.system.words import counted

_TOLERANCE = 0.1
"""Relative; rounding in TensorFloat-32 and in half precision stays below it."""
_SLACK = 1e-3
"""Of the longest one: the length of a gradient that all but vanishes is little more than rounding."""


def doubt(clipped: Sequence[float], alone: Sequence[float]) -> str:
    """A sentence where a step clipped other gradients than those that its images have alone.

    A gradient in which other images have a part may be clipped to C and still change by more than that, or
    change others, where an image comes or goes.

    Args:
        clipped: lengths of the gradients that the step clipped, of all or of a part of the images.
        alone: lengths of the images' own gradients, at least one.

    Returns:
        An empty string where each of the former is one of the latter.

    Example:
        >>> doubt([2.0, 1.0], [1.001, 2.0])
        ''
        >>> doubt([2.0], [1.0, 2.0])
        ''
        >>> "are 0.5 times as long" in doubt([0.5, 1.0], [1.0, 2.0])
        True
    """
    if len(clipped) > len(alone):
        return (
            f"This step clipped {counted(len(clipped), 'gradient')}, and `originals` has "
            f"{counted(len(alone), 'image')}: give all images of the step. Where an image has several rows "
            "in the batch, each is clipped to C by itself, and the epsilon is that of one row."
        )
    if _found(clipped, alone):
        return ""
    if len(clipped) == len(alone):
        factor = median(a / max(b, 1e-12) for a, b in zip(sorted(clipped), sorted(alone), strict=True))
        if factor and _found(clipped, [factor * each for each in alone]):
            return (
                f"The gradients that this step clipped are {factor:.3g} times as long as those that its "
                "images have alone. A factor that is always the same does no harm. Where it depends on the "
                "batch, as on the number of its images, one image changes the gradients of all others, and "
                "the epsilon does not hold: Opacus' `loss_reduction` must say whether the loss is a sum or a "
                "mean, and nothing that is computed from the batch may scale it."
            )
    return (
        "The gradients that this step clipped have other lengths than those that its images have alone. "
        "Where images meet in the loss (contrastive pairs, weights or means over the batch), or in a layer "
        "during training, one of them changes the gradients of the others, and the epsilon does not hold. Or "
        "`model`, `loss` or `originals` are not those of the step."
    )


def _found(clipped: Sequence[float], alone: Sequence[float]) -> bool:
    """Whether each of `clipped` is about one of `alone`, and no two are the same one."""
    slack = _SLACK * max(alone)
    left = iter(sorted(alone))
    for length in sorted(clipped):
        room = _TOLERANCE * length + slack
        nearest = next((each for each in left if each >= length - room), None)
        if nearest is None or nearest > length + room:
            return False
    return True

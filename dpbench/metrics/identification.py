"""Whether a reconstruction tells which image it is of: the original is picked out of a gallery."""

from __future__ import annotations

import torch
from torch import Tensor


def identified(images: Tensor, originals: Tensor, others: Tensor, mean_image: Tensor) -> Tensor:
    """Whether each original is the image of the gallery that its reconstruction correlates with most.

    The correlation is of pixels less the public mean image, so neither contrast nor what all images share
    decides. The gallery of each image is its original and `others`; a guess has a chance of 1 over its size.
    GradInversion's IIP (Yin et al. 2021) asks the same with a network's features in place of pixels.

    Args:
        images: reconstructions, [B, C, H, W] in [0, 1].
        originals: the same shape, aligned.
        others: [G, C, H, W] in [0, 1], none of them an original.
        mean_image: [C, H, W] in [0, 1], of yet other images.

    Returns:
        bool [B]. A reconstruction that is nothing but the mean image, and a tie, identify nothing.

    Example:
        >>> originals, others = torch.rand(2, 3, 8, 8), torch.rand(5, 3, 8, 8)
        >>> identified(0.5 + 0.1 * (originals - 0.5), originals, others, torch.full((3, 8, 8), 0.5))
        tensor([True, True])
    """
    guesses, true, false = (_units(x, mean_image) for x in (images, originals, others))
    own = (guesses * true).sum(1)
    return (own > (guesses @ false.T).amax(1)) & (own > 0)


def _units(images: Tensor, mean_image: Tensor) -> Tensor:
    return torch.nn.functional.normalize((images.double() - mean_image.double()).flatten(1), dim=1)

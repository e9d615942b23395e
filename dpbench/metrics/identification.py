"""Whether a reconstruction tells which image it is of: the original is picked out of a gallery."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from dpbench.metrics.image import checked_pair
from dpbench.metrics.perceptual import pooled
from dpbench.protocol import InputError
from dpbench.system import digest

KEPT = 8
"""Galleries whose features a process remembers: all attacks on a batch share one."""
_galleries: dict[tuple[str, str], Tensor] = {}


def identified(images: Tensor, originals: Tensor, others: Tensor, mean_image: Tensor) -> Tensor:
    """Whether each original is the image of the gallery that its reconstruction correlates with most.

    The correlation is of pixels less the public mean image, so neither contrast nor what all images share
    decides. The gallery of each image is its original and `others`; a guess has a chance of 1 over its size.
    `iip` asks the same with a network's features in place of pixels.

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
    return F.normalize((images.double() - mean_image.double()).flatten(1), dim=1)


def iip(images: Tensor, originals: Tensor, gallery: Tensor, net: str = "alex") -> Tensor:
    """Image Identifiability Precision, per image (GradInversion, Yin et al. 2021): their mean is the paper's.

    Whether the reconstruction's nearest neighbour in the gallery is its original, by cosine similarity of
    average-pooled features. The paper takes the victim's features. Here they are the last convolutional ones
    of LPIPS' trunk, the same judge for every victim, the untrained included.

    Args:
        images: reconstructions, [B, 3, H, W] in [0, 1].
        originals: the same shape, aligned.
        gallery: [G, 3, H, W] in [0, 1], the originals among them; a guess has a chance of 1 / G.
        net: `alex` or `vgg`.

    Returns:
        bool [B]. A tie with another image identifies nothing; copies of the original count as it.

    Raises:
        InputError: for a gallery without one of the originals, or images too small for the network; see
            `checked_pair` for the rest.
        dpbench.assets.AssetUnavailable: if no source has the net's trunk.
    """
    images, originals = checked_pair(images, originals)
    gallery, _ = checked_pair(gallery, gallery)
    if gallery.shape[1:] != images.shape[1:]:
        raise InputError(
            f"The gallery's images must have the size of the reconstructions: {tuple(images.shape[1:])}, not "
            f"{tuple(gallery.shape[1:])}."
        )
    gallery = gallery.to(images)
    own = torch.stack([(gallery == original.to(gallery)).flatten(1).all(1) for original in originals])
    missing = (~own.any(1)).sum().item()
    if missing:
        raise InputError(
            f"The gallery lacks {missing} of the {len(originals)} originals, so nothing could be identified: "
            "add the originals to it."
        )
    guesses = F.normalize(pooled(images, net).double(), dim=1)
    similarity = guesses @ F.normalize(_pooled_gallery(gallery, net).double(), dim=1).T
    nearest_own = similarity.masked_fill(~own, -1).amax(1)
    return nearest_own > similarity.masked_fill(own, -1).amax(1)


def _pooled_gallery(gallery: Tensor, net: str) -> Tensor:
    key = digest.tensors({"gallery": gallery}), f"{net} {gallery.device}"
    if key not in _galleries:
        if len(_galleries) >= KEPT:
            del _galleries[next(iter(_galleries))]
        _galleries[key] = pooled(gallery, net)
    return _galleries[key]

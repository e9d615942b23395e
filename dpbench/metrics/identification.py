"""Whether a reconstruction tells which image it is of: the original is picked out of a gallery.

The gallery of an original is itself and its decoys. Each of its images gets the highest similarity it has to
any of the attack's B images, and the original is identified if it beats every decoy. No assignment of images
to originals comes in, because the assignment knows the originals and not the decoys. So if nothing leaks, the
original and its decoys are exchangeable, and the chance is 1 over the size of the gallery, whatever B is.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from dpbench.metrics.base import Scored, Values, metric
from dpbench.metrics.checks import checked_pair
from dpbench.metrics.gallery import decoys
from dpbench.metrics.perceptual import pooled
from dpbench.protocol import InputError
from dpbench.store.columns import Column
from dpbench.system import digest

KEPT = 8
"""Galleries whose features a process remembers: all attacks on a batch share one."""
CHUNK = 64
"""Images compared in float64 at a time, which bounds memory at 224 px."""
_features: dict[tuple[str, str], Tensor] = {}


def identified(
    images: Tensor, originals: Tensor, others: Tensor, mean_image: Tensor, chosen: Tensor | None = None
) -> Tensor:
    """Whether each original correlates more with one of the images than every decoy with any of them.

    The correlation is of pixels less the public mean image, so neither contrast nor what all images share
    decides. `iip` asks the same with a network's features in place of pixels.

    Args:
        images: reconstructions, [B, 3, H, W] in [0, 1], in any order.
        originals: [B', 3, H, W] in [0, 1].
        others: [G, 3, H, W] in [0, 1], none of them an original.
        mean_image: [3, H, W] in [0, 1], of yet other images.
        chosen: bool [B', G], which of `others` are the decoys of each original; None takes all.

    Returns:
        bool [B']. A tie, such as the mean image itself, identifies nothing.

    Raises:
        InputError: for NaN, infinity or a shape that does not fit.

    Example:
        >>> originals, others = torch.rand(2, 3, 8, 8), torch.rand(5, 3, 8, 8)
        >>> identified(0.5 + 0.1 * (originals - 0.5), originals, others, torch.full((3, 8, 8), 0.5))
        tensor([True, True])
    """
    images, _ = checked_pair(images, images)
    gallery = _gallery(images, originals, others)
    guesses = _centred(images, mean_image)
    similarity = [_centred(chunk, mean_image) @ guesses.T for chunk in gallery.split(CHUNK)]
    return _beats(torch.cat(similarity), len(originals), chosen)


def _centred(images: Tensor, mean_image: Tensor) -> Tensor:
    return F.normalize((images.double() - mean_image.to(images).double()).flatten(1), dim=1)


def iip(
    images: Tensor, originals: Tensor, others: Tensor, net: str = "alex", chosen: Tensor | None = None
) -> Tensor:
    """Image Identifiability Precision, per image, after GradInversion (Yin et al. 2021).

    The paper counts how often the nearest neighbour of a reconstruction in the data set is its original. It
    takes the victim's features. Here they are the last convolutional ones of LPIPS' trunk, averaged over the
    image and compared by their cosine: the same judge for every victim, the untrained included. And the
    original is to be the image of its gallery that is nearest to any reconstruction, see this module.

    Args:
        images: reconstructions, [B, 3, H, W] in [0, 1], in any order.
        originals: [B', 3, H, W] in [0, 1].
        others: [G, 3, H, W] in [0, 1], none of them an original.
        net: `alex` or `vgg`.
        chosen: bool [B', G], which of `others` are the decoys of each original; None takes all.

    Returns:
        bool [B']. A tie with a decoy identifies nothing.

    Raises:
        InputError: for images too small for the network, NaN, infinity or a shape that does not fit.
        dpbench.assets.AssetUnavailable: if no source has the net's trunk.
    """
    images, _ = checked_pair(images, images)
    gallery = _pooled(_gallery(images, originals, others), net)
    guesses = F.normalize(pooled(images, net).double(), dim=1)
    return _beats(F.normalize(gallery.double(), dim=1) @ guesses.T, len(originals), chosen)


def _gallery(images: Tensor, originals: Tensor, others: Tensor) -> Tensor:
    for batch in (originals, others):
        if batch.shape[1:] != images.shape[1:]:
            raise InputError(
                f"The gallery's images must have the size of the reconstructions: {tuple(images.shape[1:])}, "
                f"not {tuple(batch.shape[1:])}."
            )
    return torch.cat([originals.to(images), others.to(images)])


def _beats(similarity: Tensor, originals: int, chosen: Tensor | None) -> Tensor:
    """Whether each of the first rows has a higher maximum than all of its decoys among the others."""
    own, false = similarity.amax(1).tensor_split([originals])
    if chosen is None:
        return own > false.amax()
    return own > false.expand(originals, -1).masked_fill(~chosen.to(false.device), -torch.inf).amax(1)


def _pooled(gallery: Tensor, net: str) -> Tensor:
    key = digest.tensors({"gallery": gallery}), f"{net} {gallery.device}"
    if key not in _features:
        if len(_features) >= KEPT:
            del _features[next(iter(_features))]
        _features[key] = pooled(gallery, net)
    return _features[key]


@metric(
    "identified",
    columns=(
        Column("identified", "boolean", "measured", "the original was picked out of a gallery by the images"),
        Column("gallery_size", "Int64", "measured", "images in that gallery: the original and its decoys"),
        Column(
            "gallery_labels",
            "string",
            "measured",
            "`same`: the decoys have the original's label; `any`: there are too few of these",
        ),
    ),
    better="higher",
)
def of_pixels(scored: Scored) -> Values:
    """The columns `identified`, `gallery_size` and `gallery_labels`."""
    chosen, sizes = _chosen(scored)
    others, labels = scored.others
    found = identified(scored.outputs, scored.originals, others, scored.mean_image, chosen)
    other_label = (labels != scored.labels[:, None]).to(chosen.device)
    mixed = (chosen & other_label).any(1).tolist()
    return {
        "identified": _where(sizes, found.tolist()),
        "gallery_size": sizes,
        "gallery_labels": _where(sizes, ["any" if of_any else "same" for of_any in mixed]),
    }


@metric(
    "iip",
    columns=(
        Column("iip", "boolean", "measured", "the same by a network's features in place of pixels"),
        Column("iip_chance", "float64", "measured", "chance of a blind guess at it: 1 over `gallery_size`"),
        Column("iip_net", "string", "provenance", "that network; empty without its real weights"),
    ),
    better="higher",
)
def of_features(scored: Scored) -> Values:
    """The columns `iip`, `iip_chance` and `iip_net`."""
    if scored.lpips_net is None:
        return {}
    chosen, sizes = _chosen(scored)
    found = iip(scored.outputs, scored.originals, scored.others[0], scored.lpips_net, chosen)
    return {
        "iip": _where(sizes, found.tolist()),
        "iip_chance": [size and 1 / size for size in sizes],
        "iip_net": _where(sizes, [scored.lpips_net] * len(found)),
    }


def _chosen(scored: Scored) -> tuple[Tensor, list[int | None]]:
    """The decoys of each original, and the size of its gallery; None where it has no decoy."""
    if scored.others is None:
        raise InputError("There is no gallery: nothing of the same data lies outside the batch.")
    chosen = decoys(scored.originals, scored.labels, *scored.others)
    return chosen, [count + 1 if count else None for count in chosen.sum(1).tolist()]


def _where(sizes: list[int | None], values: list[object]) -> list[object]:
    return [None if size is None else value for size, value in zip(sizes, values, strict=True)]

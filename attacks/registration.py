"""Group consistency: what several reconstructions of one batch agree on (GradInversion, eq. 11 and 12).

Seeds of the search put the same object in different places, so their plain mean is blurred. Each seed is
therefore registered to that mean first, in the style of RANSAC-Flow (Shen et al. 2020): mutual nearest
neighbours of deep features and RANSAC give a homography, which is then refined on the pixels.
"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor
from torch.nn import functional as F

from attacks.features import Features
from attacks.photometric import centres, refine, warp
from dpbench.protocol import InputError

CELLS = 32
"""Height and width of the feature maps that are matched; images are resized to give maps of that size."""
FEWEST = 12
"""Least number of matches that have to agree on a homography."""
FARTHEST = 2 / 3
"""Farthest that a corner may move, the image being 2 wide; beyond it a homography folds or badly scales."""
ALIKE = 0.3
"""Least correlation with the reference; below it two images have too little in common to be registered."""
CHUNK = 16
"""Images worked on at a time, which bounds memory at 224 px."""


def lazy(seeds: Tensor) -> Tensor:
    """The pixel-wise mean over the seeds: the paper's "lazy" consensus.

    Args:
        seeds: [S, B, C, H, W].

    Returns:
        [B, C, H, W].

    Raises:
        InputError: for another number of dimensions or no seed.
    """
    if seeds.ndim != 5 or not len(seeds):
        raise InputError(f"Seeds must be [S, B, C, H, W] with S at least 1; got {tuple(seeds.shape)}.")
    return seeds.mean(0)


@torch.no_grad()
def consensus(seeds: Tensor, features: Features | None = None, seed: int = 0) -> Tensor:
    """The mean over the seeds, each registered to their pixel-wise mean (eq. 12).

    Args:
        seeds: reconstructions of one batch, [S, B, C, H, W] in [0, 1].
        features: see `register`; None registers nothing, which is `lazy`.
        seed: decides RANSAC's draws.

    Returns:
        [B, C, H, W] in [0, 1], without gradients.

    Raises:
        InputError: see `lazy` and `register`.
    """
    mean = lazy(seeds)
    if features is None:
        return mean
    described = describe(mean, features)
    registered = [_registered(images, mean, describe(images, features), described, seed) for images in seeds]
    return lazy(torch.stack(registered))


@torch.no_grad()
def register(images: Tensor, references: Tensor, features: Features, seed: int = 0) -> Tensor:
    """Each image moved onto its reference by a homography.

    An image stays as it is if fewer than `FEWEST` feature matches agree on a homography, if the homography
    moves a corner by more than `FARTHEST`, or if the moved image correlates with its reference no more than
    before or by less than `ALIKE`. Pixels that the moved image does not cover are taken from the reference.

    Args:
        images: [N, C, H, W] in [0, 1].
        references: the same shape.
        features: images [N, C, H', W'] of any size -> maps [N, D, h, w], on the images' device.
        seed: decides RANSAC's draws. They are the same for each image, whatever else is in the batch; the
            global random state stays as it was.

    Returns:
        [N, C, H, W] in [0, 1].

    Raises:
        InputError: for unequal shapes or features that are not maps.
    """
    if images.ndim != 4 or images.shape != references.shape:
        raise InputError(
            f"Images and references must be [N, C, H, W] of one shape; got {tuple(images.shape)} and "
            f"{tuple(references.shape)}."
        )
    return _registered(images, references, describe(images, features), describe(references, features), seed)


def describe(images: Tensor, features: Features) -> Tensor:
    """Maps [N, D, h, w] of unit vectors, h and w about `CELLS`.

    The mean over each map is subtracted: what all places share does not tell them apart.

    Raises:
        InputError: for features that are not maps.
    """
    native = features(images[:1])
    if native.ndim != 4:
        raise InputError(f"Features to register by must be maps [N, D, h, w]; got {tuple(native.shape)}.")
    size = [
        round(CELLS * side / cells) for side, cells in zip(images.shape[2:], native.shape[2:], strict=True)
    ]
    maps = []
    for chunk in images.split(CHUNK):
        resized = F.interpolate(chunk, size, mode="bicubic", antialias=True).clamp(0, 1)
        maps.append(features(resized).float())
    found = torch.cat(maps)
    return F.normalize(found - found.mean((2, 3), keepdim=True), dim=1)


def _registered(
    images: Tensor, references: Tensor, of_image: Tensor, of_reference: Tensor, seed: int
) -> Tensor:
    coarse = torch.stack(
        [_homography(*matches(b, a), seed) for a, b in zip(of_image, of_reference, strict=True)]
    )
    result = images.clone()
    for chunk in coarse.isfinite().all((1, 2)).nonzero()[:, 0].split(CHUNK):
        here = chunk.to(images.device)
        result[here] = _moved(images[here], references[here], coarse[chunk].to(images))
    return result


def matches(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Places of two feature maps that are each other's nearest neighbour by cosine similarity.

    Args:
        a: unit vectors [D, h, w].
        b: likewise, of the same shape.

    Returns:
        Points [M, 2] of `a` and of `b`, each (x, y) in (-1, 1), on the CPU.

    Example:
        >>> a = torch.eye(4).view(4, 1, 4)
        >>> x, y = matches(a, a.roll(1, dims=2))
        >>> x[:, 0], y[:, 0]
        (tensor([-0.7500, -0.2500,  0.2500,  0.7500]), tensor([-0.2500,  0.2500,  0.7500, -0.7500]))
    """
    similarity = a.flatten(1).T @ b.flatten(1)
    there, back = similarity.argmax(1), similarity.argmax(0)
    here = torch.arange(len(there), device=a.device)
    mutual = back[there] == here
    points = centres(*a.shape[1:], a)[:2].T
    return points[mutual].cpu(), points[there[mutual]].cpu()


def _homography(of_reference: Tensor, of_image: Tensor, seed: int) -> Tensor:
    """Homography [3, 3] from reference to image; NaN if too few points agree on one."""
    none = torch.full((3, 3), torch.nan)
    if len(of_reference) < FEWEST:
        return none
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning)  # kornia still scripts functions
        from kornia.geometry.ransac import RANSAC
    # on the CPU, so that the draws do not depend on the device
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        ransac = RANSAC("homography", inl_th=2 / CELLS, batch_size=1024, max_iter=4)
        found, inliers = ransac(of_reference, of_image)
    return found / found[2, 2] if inliers.sum() >= FEWEST else none


def _moved(images: Tensor, references: Tensor, coarse: Tensor) -> Tensor:
    """`images` moved by the refined `coarse` homographies; images without a credible one stay as they are."""
    homographies = refine(images, references, coarse)
    moved, inside = warp(images, homographies, "bicubic")
    corners = torch.tensor([[-1.0, 1, -1, 1], [-1, -1, 1, 1], [1, 1, 1, 1]]).to(images)
    there = homographies @ corners
    distance = (there[:, :2] / there[:, 2:] - corners[:2]).norm(dim=1).amax(1)
    before, after = (_correlation(x, references, inside) for x in (images, moved))
    credible = (distance <= FARTHEST) & (after > before) & (after >= ALIKE)  # not where any is NaN
    filled = torch.where(inside, moved.clamp(0, 1), references)
    return torch.where(credible[:, None, None, None], filled, images)


def _correlation(images: Tensor, references: Tensor, inside: Tensor) -> Tensor:
    """Pearson's correlation [N] over the pixels `inside`, each channel less its mean."""
    count = inside.sum((2, 3), keepdim=True)
    x, y = ((z - (z * inside).sum((2, 3), keepdim=True) / count) * inside for z in (images, references))
    return F.cosine_similarity(x.flatten(1), y.flatten(1))

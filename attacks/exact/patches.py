"""One image of a vision transformer, from the gradients of its position embedding and its patch embedding.

A learned position embedding is added to the embedded patches, so its gradient is the loss gradient delta_n at
each of them (Lu et al., CVPR 2022, APRIL). APRIL goes on through the first attention layer. The patches
follow sooner: the gradient of the patch embedding's weights, sum_n delta_n x_n^T, is linear in the patches
x_n. The N patches are determined where the deltas are independent, for which N <= D is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from attacks.exact.embedding import Embedding
from attacks.exact.newton import least_squares
from attacks.gaussian_prior import Whitening
from dpbench.protocol import ImageStatistics, Knowledge

ROUNDING = 1e-7
"""Relative error of what was computed in float32, at least."""
KNOWN = 0.01
"""Largest error of a combination of patches (standard deviation, values) that the gradients determine."""
SPREAD = 0.25
"""Standard deviation of a pixel, images in [0, 1], where nothing is known of images."""
STEPS = 200
"""Conjugate gradients to fill in what they do not."""
DRAWS = 2
"""Images drawn from the prior to see how well that fills it in."""


@dataclass(frozen=True)
class Patches:
    """An image solved for.

    Attributes:
        image: float64 [C, H, W], not clamped.
        expected: error to expect, root mean square, images in [0, 1].
        determined: the gradients leave nothing open for the prior to fill in: no combination of patches, and
            no pixel outside them.
    """

    image: Tensor
    expected: float
    determined: bool


def prior_of(knowledge: Knowledge) -> Whitening:
    """What public images say of the image; independent pixels around the mean colour if no statistics fit."""
    statistics, shape = knowledge.image_statistics, tuple(knowledge.image_shape)
    if statistics is None or tuple(statistics.mean_image.shape) != shape:
        mean = torch.tensor(knowledge.mean)[:, None, None].expand(shape)
        statistics = ImageStatistics(mean, torch.eye(shape[0]), torch.full(shape, SPREAD**2))
    return Whitening(statistics).double().cpu()


def solved(
    embedding: Embedding,
    gradients: Mapping[str, Tensor],
    prior: Whitening,
    generator: torch.Generator,
    progress: Callable[[int, int, float], None] = lambda *_: None,
) -> Patches | None:
    """The image; None where the gradient of the position embedding is zero, or no number.

    Args:
        embedding: of the victim.
        gradients: released, by name; float64 on the CPU, of one image.
        prior: of images.
        generator: on the CPU.
        progress: told (conjugate gradients done, all of them, objective) while what is open is filled in.
    """
    deltas = gradients[embedding.position].flatten()[embedding.entries]  # [N, D]
    weights = gradients[embedding.weight].flatten(1)  # [D, P] = deltas^T patches
    if not bool(deltas.any()) or not bool(deltas.isfinite().all() and weights.isfinite().all()):
        return None
    left, singular, right = torch.linalg.svd(deltas)
    errors = ROUNDING * float(weights.abs().max()) / singular.clamp_min(torch.finfo(torch.float64).tiny)
    known = int((errors < KNOWN).sum())
    found = left[:, :known], left[:, known:]
    told = right[:known] @ weights / singular[:known, None]  # combinations found[0]^T patches

    def tell(rounds: int) -> Callable[[int, float], None]:
        return lambda done, value: progress(STEPS * rounds + done, STEPS * (1 + DRAWS), value)

    image = _filled(embedding, found, told, prior, tell(0))
    rounding = float(errors[:known].square().sum() / len(left)) ** 0.5 / float(embedding.gain.abs().mean())
    determined = known == len(left) and embedding.covers(image.numel())
    missed = []
    for i in range(0 if determined else DRAWS):
        entries = torch.randn(image.shape, dtype=torch.float64, generator=generator)
        drawn = prior.inverse(entries[None])[0]
        again = _filled(embedding, found, found[0].T @ embedding.values(drawn), prior, tell(1 + i))
        missed.append(float((again - drawn).square().mean()))
    expected = (rounding**2 + sum(missed) / DRAWS) ** 0.5
    return Patches(image, expected, determined)


def _filled(
    embedding: Embedding,
    basis: tuple[Tensor, Tensor],
    told: Tensor,
    prior: Whitening,
    progress: Callable[[int, float], None] = lambda *_: None,
) -> Tensor:
    """The likeliest image [C, H, W] whose patches x have basis[0]^T x = `told`.

    Args:
        embedding: of the victim.
        basis: orthonormal columns [N, k] and [N, N - k].
        told: [k, P].
        prior: of images.
        progress: see `least_squares`.
    """
    known, free = basis
    held, mean = known @ told, prior.mean_image
    if not free.shape[1]:
        return embedding.image(held, mean)

    def image(coefficients: Tensor) -> Tensor:
        return embedding.image(held + free @ coefficients, mean)

    start = free.T @ embedding.values(mean)
    return image(least_squares(lambda each: prior(image(each)[None]).flatten(), start, STEPS, progress))

"""One image of a vision transformer, from the gradients of its position embedding and its patch embedding.

A learned position embedding is added to the embedded patches, so its gradient is the loss gradient delta_n at
each of them (Lu et al., CVPR 2022, APRIL). APRIL goes on through the first attention layer. The patches
follow sooner: the gradient of the patch embedding's weights, sum_n delta_n x_n^T, is linear in the patches
x_n. The N patches are determined where the deltas are independent, for which N <= D is needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from attacks.base import channel_statistics
from attacks.exact.embedding import Embedding
from attacks.exact.newton import least_squares
from attacks.exact.priors import ROUNDING as PIXEL_ROUNDING
from dpbench.protocol import ImageStatistics, Knowledge

ROUNDING = 1e-7
"""Relative error of what was computed in float32, at least."""
KNOWN = 0.01
"""Largest error of a combination of patches (standard deviation, values) that the gradients determine."""
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
        open: combinations of patches that the gradients leave open and the prior fills in.
    """

    image: Tensor
    expected: float
    open: int


class Plain:
    """Independent pixels with standard deviation 1/4 around the data's mean colour.

    Args:
        mean: [C].
        shape: (C, H, W).
    """

    def __init__(self, mean: Tensor, shape: tuple[int, int, int]) -> None:
        self.mean = mean.double()[:, None, None].expand(shape).contiguous()

    def whitened(self, image: Tensor) -> Tensor:
        """The image [C, H, W] as independent normal numbers."""
        return 4 * (image - self.mean)

    def draw(self, generator: torch.Generator) -> Tensor:
        """An image [C, H, W]."""
        return self.mean + torch.randn(self.mean.shape, dtype=torch.float64, generator=generator) / 4


class Stationary:
    """A stationary field around the mean of public images.

    Args:
        statistics: of these.
    """

    def __init__(self, statistics: ImageStatistics) -> None:
        self.mean, self.colours, spectrum = (
            x.double().cpu() for x in (statistics.mean_image, statistics.colours, statistics.spectrum)
        )
        self.scale = (spectrum + PIXEL_ROUNDING).sqrt()

    def whitened(self, image: Tensor) -> Tensor:
        """The image [C, H, W] as independent normal numbers."""
        colours = torch.einsum("kc,chw->khw", self.colours, image - self.mean)
        return torch.view_as_real(torch.fft.fft2(colours, norm="ortho") / self.scale)

    def draw(self, generator: torch.Generator) -> Tensor:
        """An image [C, H, W]."""
        noise = torch.randn(self.mean.shape, dtype=torch.float64, generator=generator)
        colours = torch.fft.ifft2(torch.fft.fft2(noise, norm="ortho") * self.scale, norm="ortho").real
        return self.mean + torch.einsum("kc,khw->chw", self.colours, colours)


def prior_of(knowledge: Knowledge) -> Plain | Stationary:
    """What public images say of the image; the data's mean colour where no statistics fit."""
    statistics, shape = knowledge.image_statistics, tuple(knowledge.image_shape)
    if statistics is not None and tuple(statistics.mean_image.shape) == shape:
        return Stationary(statistics)
    return Plain(channel_statistics(knowledge, torch.zeros(1, dtype=torch.float64))[0].flatten().cpu(), shape)


def solved(
    embedding: Embedding,
    gradients: Mapping[str, Tensor],
    prior: Plain | Stationary,
    generator: torch.Generator,
) -> Patches | None:
    """The image; None where the gradient of the position embedding is zero.

    Args:
        embedding: of the victim.
        gradients: released, by name; float64 on the CPU, of one image.
        prior: of images.
        generator: on the CPU.
    """
    deltas = gradients[embedding.position].flatten()[embedding.entries]  # [N, D]
    weights = gradients[embedding.weight].flatten(1)  # [D, P] = deltas^T patches
    left, singular, right = torch.linalg.svd(deltas)
    if not float(singular[0]) > 0:
        return None
    errors = ROUNDING * float(weights.abs().max()) / singular.clamp_min(torch.finfo(torch.float64).tiny)
    known = int((errors < KNOWN).sum())
    found = left[:, :known], left[:, known:]
    told = right[:known] @ weights / singular[:known, None]  # combinations found[0]^T patches
    image = _filled(embedding, found, told, prior)
    rounding = float(errors[:known].square().sum() / len(left)) ** 0.5 / float(embedding.gain.abs().mean())
    squares = [rounding**2]
    if known < len(left):
        draws = [prior.draw(generator) for _ in range(DRAWS)]
        missed = [_filled(embedding, found, found[0].T @ embedding.values(x), prior) - x for x in draws]
        squares.append(float(torch.stack(missed).square().mean()))
    return Patches(image, sum(squares) ** 0.5, len(left) - known)


def _filled(
    embedding: Embedding, basis: tuple[Tensor, Tensor], told: Tensor, prior: Plain | Stationary
) -> Tensor:
    """The likeliest image [C, H, W] whose patches x have basis[0]^T x = `told`.

    Args:
        embedding: of the victim.
        basis: orthonormal columns [N, k] and [N, N - k].
        told: [k, P].
        prior: of images.
    """
    known, free = basis
    held = known @ told
    if not free.shape[1]:
        return embedding.image(held, prior.mean)
    start = free.T @ embedding.values(prior.mean)

    def image(coefficients: Tensor) -> Tensor:
        return embedding.image(held + free @ coefficients, prior.mean)

    return image(least_squares(lambda each: prior.whitened(image(each)).flatten(), start, STEPS))

"""Images drawn from the posterior of a noisy release, by noise that is taken away level by level.

At each level an image is seen under white noise. A denoiser tells the expected image behind it and how far
off that may be; about there the release is linearised, and an image is drawn from the Gaussian that both make
together. It is put under the noise of the next level, and so on (decoupled annealing, Zhang et al. 2024,
"Improving diffusion inverse problem solving with decoupled noise annealing"). A draw solves a randomised
least-squares problem (Papandreou and Yuille 2010), by conjugate gradients.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from attacks.engine.twice import operation_of, refusal, twice_differentiable
from attacks.exact.newton import conjugate_gradients, linearised
from attacks.gaussian_prior import Whitening
from dpbench.protocol import InputError, Knowledge

Noise = Callable[..., Tensor]
"""A standard normal draw of that shape."""
HIGHEST, LOWEST = 0.4, 0.02
"""First and last noise level, as standard deviations of pixels in [0, 1]. Tuned, see docs/noise.md; the first
is about as much as a linear estimate leaves open."""
PRODUCTS = 8
"""Conjugate gradients of a draw; tuned."""


class Told(Protocol):
    """What the attacker was told of the images that are drawn.

    Attributes:
        knowledge: the victim.
        labels: int64 [B], theirs.
    """

    knowledge: Knowledge
    labels: Tensor

    def residuals(self, images: Tensor) -> Tensor:
        """What `images` [B, C, H, W] leave unexplained, flat, in standard deviations of its noise."""


@dataclass(frozen=True)
class Level:
    """A noise level, and what the denoiser leaves open there.

    Attributes:
        noise: standard deviation of the noise.
        deviation: of each entry of the error, in the basis of `Whitening`, [C, H, W].
    """

    noise: float
    deviation: Tensor


def levels(
    count: int, denoiser: nn.Module, whitening: Whitening, images: Tensor, labels: Tensor, noise: Noise
) -> list[Level]:
    """Noise levels from `HIGHEST` to `LOWEST`, by equal factors.

    The denoiser's error has the spectrum that the Wiener filter's has, and the size that it has on `images`.

    Args:
        count: of levels, at least 1.
        denoiser: as `Knowledge.image_denoiser`.
        whitening: statistics of images.
        images: public ones, [n, C, H, W].
        labels: theirs, int64 [n].
        noise: makes standard normal draws.
    """
    found = []
    for s in torch.logspace(math.log10(HIGHEST), math.log10(LOWEST), count).tolist():
        expected = denoiser(images + s * noise(*images.shape), images.new_full((len(images),), s), labels)
        error = (expected - images).square().mean()
        power = whitening.deviation.to(images).square()
        open_ = power * s**2 / (power + s**2)
        found.append(Level(s, (open_ * (error / open_.mean())).sqrt()))
    return found


def draw(
    told: Told,
    start: Tensor,
    steps: Sequence[Level],
    denoiser: nn.Module,
    whitening: Whitening,
    noise: Noise,
    newton: int = 1,
    products: int = PRODUCTS,
) -> Tensor:
    """Images [B, C, H, W] from the posterior, not clamped; the last level's are expected ones, not drawn.

    Args:
        told: what is known of the images.
        start: images [B, C, H, W] that are put under the first level's noise.
        steps: of `levels`.
        denoiser: as `Knowledge.image_denoiser`.
        whitening: statistics of images, in whose basis the errors are.
        noise: makes standard normal draws.
        newton: steps of a level, each about the last one's end; what is known exactly needs several.
        products: conjugate gradients of a step.

    Raises:
        InputError: where the victim has an operation without a second derivative.
    """
    found = start
    for step in steps:
        noisy = found + step.noise * noise(*start.shape)
        middle = denoiser(noisy, noisy.new_full((len(noisy),), step.noise), told.labels)
        drawn = step is not steps[-1]
        found = _given(told, middle, step, whitening, noise, drawn, newton, products)
    return found


def _given(
    told: Told,
    middle: Tensor,
    step: Level,
    whitening: Whitening,
    noise: Noise,
    drawn: bool,
    newton: int,
    products: int,
) -> Tensor:
    """A draw from, or the mean of, what the release makes of images expected at `middle`."""
    images = lambda entries: middle + whitening.turned(entries * step.deviation)  # noqa: E731
    zero = torch.zeros_like(middle)
    try:
        with twice_differentiable():
            forth, back, values = linearised(lambda entries: told.residuals(images(entries)), zero)
            first, errors = zero, torch.zeros_like(values)
            if drawn:
                first, errors = noise(*middle.shape), noise(*values.shape)
                values = values + forth(first) - errors
            entries = first + conjugate_gradients(forth, back, values, products, damping=1.0)
            for _ in range(newton - 1):
                forth, back, values = linearised(
                    lambda entries: torch.cat(
                        [told.residuals(images(entries)) - errors, (entries - first).flatten()]
                    ),
                    entries,
                )
                entries = entries + conjugate_gradients(forth, back, values, products)
    except RuntimeError as error:
        if isinstance(error, InputError) or (operation := operation_of(error)) is None:
            raise
        raise refusal(told.knowledge.model, middle, operation) from error
    return images(entries)


def in_order(drawn: Tensor, others: Tensor, labels: Tensor) -> Tensor:
    """Drawn images [B, C, H, W], those of a label in the order in which they are nearest to the others.

    A release is a sum, so images of one label come out of each draw in an order of their own, and the mean
    over draws would be a mean over images.

    Args:
        drawn: of one draw.
        others: sum or mean of those before.
        labels: int64 [B].

    Example:
        >>> swapped = in_order(torch.eye(2), torch.eye(2).flip(0), torch.tensor([3, 3]))
        >>> swapped.tolist()
        [[0.0, 1.0], [1.0, 0.0]]
    """
    found = drawn.clone()
    for label in labels.unique():
        places = (labels == label).nonzero().flatten()
        if len(places) < 2:
            continue
        from scipy.optimize import linear_sum_assignment  # SciPy takes a second to import

        likeness = others[places].flatten(1) @ drawn[places].flatten(1).T
        _, chosen = linear_sum_assignment(likeness.cpu(), maximize=True)
        found[places] = drawn[places[torch.as_tensor(chosen, device=places.device)]]
    return found

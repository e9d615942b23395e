"""The likeliest images under a denoiser in place of a prior: plug and play.

At noise level s, a denoiser D that gives expected images knows the slope of the logarithm of a prior blurred
by that noise: (D(x) - x) / s^2 (Tweedie's formula, Robbins 1956; Romano et al. 2017, "The little engine that
could", for its use in place of a prior). The level falls from coarse to fine while the search goes on.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from attacks.base import Progress
from attacks.engine import warm_cosine
from attacks.posterior import Posterior
from dpbench.protocol import InputError, Knowledge

COARSE, FINE = 0.3, 0.03
"""First and last noise level of the denoiser, standard deviations of pixels in [0, 1]."""


def denoiser_of(knowledge: Knowledge, instead: str) -> nn.Module:
    """The denoiser that an attacker is told.

    Args:
        knowledge: with `image_denoiser`.
        instead: the parameter and value to use where there is none.

    Raises:
        InputError: where there is none.
    """
    if knowledge.image_denoiser is None:
        raise InputError(
            f"There is no denoiser for images of shape {knowledge.image_shape}, only for colour images of "
            f"32 x 32: use {instead}."
        )
    return knowledge.image_denoiser


def plugged(
    posterior: Posterior,
    denoiser: Callable[[Tensor, Tensor, Tensor], Tensor],
    start: Tensor,
    rate: float,
    iterations: int,
    progress: Progress,
) -> tuple[Tensor, Tensor, tuple[float, ...]]:
    """Adam on the nats of `posterior` and the slope that a denoiser gives.

    Args:
        posterior: the likelihood; of its prior only the map from entries to images is used.
        denoiser: (noisy images [B, C, H, W], noise [B], labels [B]) -> expected images.
        start: entries to set out from.
        rate: largest step.
        iterations: each with one call of the denoiser.
        progress: told the nats of the release.

    Returns:
        The last entries, the posterior's nats at the last step, and these nats every so many iterations.

    Raises:
        FloatingPointError: where the nats were not finite at the end.
    """
    entries = start.clone()
    adam = torch.optim.Adam([entries])
    levels = torch.logspace(0, 1, iterations, base=FINE / COARSE, device=start.device) * COARSE
    history, every = [], max(1, iterations // 100)
    for i, step in enumerate(warm_cosine(rate, iterations).tolist()):
        misfit, gradient = posterior(entries)
        slope = _slope(posterior, denoiser, entries, levels[i])
        adam.param_groups[0]["lr"] = step
        entries.grad = torch.nan_to_num(gradient + slope, nan=0.0, posinf=0.0, neginf=0.0)
        adam.step()
        if (i + 1) % every == 0 or i + 1 == iterations:
            history.append(float(misfit))
            progress(i + 1, iterations, history[-1])
    if not bool(misfit.isfinite()):
        raise FloatingPointError(
            "The likelihood was NaN or infinite at the end of the search; a smaller `learning_rate` may help."
        )
    return entries, misfit, tuple(history)


def _slope(
    posterior: Posterior, denoiser: Callable[[Tensor, Tensor, Tensor], Tensor], entries: Tensor, level: Tensor
) -> Tensor:
    """Of minus the logarithm of the blurred prior, in the entries."""
    entries = entries.detach().requires_grad_()
    with torch.enable_grad():
        images = posterior.prior.images(entries)
    with torch.no_grad():
        expected = denoiser(images, level.expand(len(images)), posterior.labels)
        downhill = (images - expected) / level.square()
    return torch.autograd.grad(images, entries, downhill)[0]

"""Images read off a fully connected layer that takes pixels: no search, one formula.

A row of such a layer has gradient s * x for its weights and s for its bias, x being the pixels and s the loss
gradient of its output. Where each row answers to one sample, the ratio is the image (Phong et al. 2017; Fowl
et al. 2022, "Robbing the Fed"); `dpbench.planted` makes such a layer.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from attacks import labels as label_rules
from attacks.base import Attack, Task, attack
from dpbench.protocol import ImagePrior, InputError, Reconstruction, Release

PRIORS = ("wiener", "none")
ROUNDS = 10
"""Of the regression for the scale; the weights, which depend on the scale, settle within a few."""


@attack("analytic")
class Analytic(Attack):
    """Takes the rows of largest gradient, one for each sample, and an image from each.

    Args:
        prior: what is believed of images under noise: `wiener` (statistics of public images) or `none`.
        adaptive: use the noise level that the defence declares; else the plain ratio.
    """

    threat_models = ("malicious-linear", "honest")

    def __init__(
        self,
        *,
        prior: str = "wiener",
        adaptive: bool = True,
    ) -> None:
        if prior not in PRIORS:
            raise InputError(f"Unknown prior {prior!r}; choose one of {', '.join(PRIORS)}.")
        self.prior, self.adaptive = prior, adaptive

    def run(self, task: Task) -> Reconstruction:
        """See `Attack.__call__`; the mean of several releases is all that matters of them."""
        release, knowledge = task.release, task.knowledge
        weights, biases = pixel_layer(release, math.prod(knowledge.image_shape))
        order = (weights.square().sum(1) + biases.square()).argsort(descending=True)
        rows = order[torch.arange(release.batch_size, device=order.device) % len(order)]
        weights, biases = weights[rows].unflatten(1, knowledge.image_shape), biases[rows]
        noise = release.noise_on_sum() / (release.batch_size * math.sqrt(len(release.each)))
        guess = torch.tensor(knowledge.mean).to(weights)[:, None, None].expand_as(weights)
        if not self.adaptive or noise == 0:
            images = torch.where(biases.eq(0)[:, None, None, None], guess, ratio(weights, biases))
        elif self.prior == "none":
            images = regression(weights, biases, noise)
        elif knowledge.prior is None:
            raise InputError("There are no statistics of public images like these: use --prior none.")
        else:
            rows = zip(weights, biases, strict=True)
            images = torch.stack([wiener(w, float(b), noise, knowledge.prior) for w, b in rows])
        labels, source = label_rules.given_or_inferred(release, knowledge)
        return Reconstruction(
            images=images.clamp(0, 1),
            labels=labels,
            label_source=source,
            gradient_distance=math.nan,
            start=guess.contiguous(),
            iterations=1,
            seconds=task.seconds(),
            engine="none",
        )


def pixel_layer(release: Release, pixels: int) -> tuple[Tensor, Tensor]:
    """Gradients of the first fully connected layer that takes whole images: weight [m, pixels], bias [m].

    Raises:
        InputError: where there is none.
    """
    found = dict(zip(release.names, release.gradients, strict=True))
    for name, gradient in found.items():
        bias = found.get(f"{name.removesuffix('weight')}bias")
        if gradient.dim() == 2 and gradient.shape[1] == pixels and bias is not None:
            return gradient, bias
    raise InputError(
        "analytic needs a fully connected layer with a bias that takes the pixels: use --threat-model "
        "malicious-linear, which plants one."
    )


def ratio(weights: Tensor, biases: Tensor) -> Tensor:
    """Weight over bias gradient: the image itself where there is no noise; [m, C, H, W] and [m]."""
    return weights / biases[:, None, None, None]


def regression(weights: Tensor, biases: Tensor, noise: float) -> Tensor:
    """The ratio shrunk for a bias gradient that is itself noisy: w b / (b^2 + tau^2), tau the noise's std."""
    return weights * (biases / (biases.square() + noise**2))[:, None, None, None]


def wiener(weight: Tensor, bias: float, noise: float, prior: ImagePrior) -> Tensor:
    """Linear minimum-mean-square estimate of x from s x + noise, after a regression for s.

    With x a Gaussian field of the prior's mean and spectrum, each frequency of the gradient has mean s m and
    variance s^2 S + tau^2, and the bias gradient mean s and variance tau^2: s is their weighted least squares
    fit. The estimate is m + s S / (s^2 S + tau^2) (gradient - s m).

    Args:
        weight: one row's weight gradient, [C, H, W].
        bias: its bias gradient.
        noise: tau, the standard deviation of the noise on each entry, above 0.
        prior: of images of that size.

    Returns:
        [C, H, W], not clamped.

    Raises:
        InputError: for statistics of images of another size.
    """
    if prior.mean_image.shape != weight.shape:
        raise InputError(
            f"The statistics are of images of shape {tuple(prior.mean_image.shape)}, not "
            f"{tuple(weight.shape)}: use --prior none."
        )
    weight, mean, colours, spectrum = (
        x.double().to(weight.device) for x in (weight, prior.mean_image, prior.colours, prior.spectrum)
    )
    seen, expected = (_to_spectrum(x, colours) for x in (weight, mean))

    variance = torch.full_like(spectrum, noise**2)
    for _ in range(ROUNDS):
        weights = 1 / variance
        scale = ((weights * (expected.conj() * seen).real).sum() + bias / noise**2) / (
            (weights * expected.abs().square()).sum() + 1 / noise**2
        )
        variance = scale**2 * spectrum + noise**2
    gain = scale * spectrum / (scale**2 * spectrum + noise**2)
    estimate = expected + gain * (seen - scale * expected)
    return _to_pixels(estimate, colours).float()


def _to_spectrum(image: Tensor, colours: Tensor) -> Tensor:
    return torch.fft.fft2(torch.einsum("kc,chw->khw", colours, image), norm="ortho")


def _to_pixels(spectrum: Tensor, colours: Tensor) -> Tensor:
    return torch.einsum("kc,khw->chw", colours, torch.fft.ifft2(spectrum, norm="ortho").real)

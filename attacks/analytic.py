"""Images read off a fully connected layer that takes pixels, by a formula instead of a search.

For one sample with pixels x, a row of such a layer has gradient s * x for its weights and s for its bias,
where s is the loss gradient of the row's output. If only one sample activates the row, the ratio is the image
(Phong et al. 2017; Fowl et al. 2022, "Robbing the Fed"); `dpbench.victim.imprint` makes such a layer.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from attacks import labels as label_rules
from attacks import parameters as shared
from attacks.adaptation import NOISY
from attacks.base import Attack, Task, attack
from attacks.denoising import denoiser_of
from dpbench.protocol import ImageStatistics, InputError, Knowledge, Reconstruction, Release, parameter

SCALES = 50
"""Number of scales of either sign that are tried before the likeliest one is refined."""


@attack("analytic")
class Analytic(Attack):
    """One image from each of the rows with the largest gradients, as many as there are samples.

    Attributes:
        adaptive: use the noise level that the defence declares; else the plain ratio.
    """

    threat_models = ("malicious-linear", "honest")

    prior: Literal["wiener", "denoiser", "none"] = parameter(
        default="wiener",
        help="what is assumed of images under noise: statistics of public images (wiener), what a trained "
        "denoiser knows of colour images of 32 x 32 (denoiser) or nothing (none)",
        only_if={"defended": True},
    )
    adaptive: bool = shared.adaptive()

    @classmethod
    def adapts(cls, stages: Sequence[str], given: Mapping[str, Any]) -> bool:
        """To noise whose level is declared."""
        return not NOISY.isdisjoint(stages)

    def run(self, task: Task) -> Reconstruction:
        """See `Attack.__call__`; of several releases only the mean matters."""
        release, knowledge = task.release, task.knowledge
        weights, biases, gain, offset = pixel_layer(release, knowledge, task.device)
        order = (weights.square().sum(1) + biases.square()).argsort(descending=True)
        rows = order[torch.arange(release.batch_size, device=order.device) % len(order)]
        # the gradient of a row's weights is s * (x + shift), x the image
        weights, biases, shift = (
            weights[rows].unflatten(1, knowledge.image_shape) / gain,
            biases[rows],
            offset / gain,
        )
        noise = release.noise_on_sum() / (release.batch_size * math.sqrt(len(release.each)))
        guess = torch.tensor(knowledge.mean).to(weights)[:, None, None].expand_as(weights)
        if not self.adaptive or noise == 0:
            images = torch.where(biases.eq(0)[:, None, None, None], guess, ratio(weights, biases) - shift)
        elif self.prior == "none":
            images = regression(weights, biases, noise) - shift
        elif knowledge.image_statistics is None:
            raise InputError("There are no statistics of public images like these: use `prior` none.")
        else:
            # the noise differs between colours if their gains do; the estimate takes one level for all
            noises = noise * float(gain.pow(-2).mean().sqrt()), noise
            known, pairs = knowledge.image_statistics, zip(weights, biases, strict=True)
            if self.prior == "denoiser":
                denoiser = denoiser_of(knowledge, "`prior` wiener")
                found = [denoised(w, float(b), *noises, known, denoiser, shift) for w, b in pairs]
            else:
                found = [wiener(w, float(b), *noises, known, shift) for w, b in pairs]
            images = torch.stack(found) - shift
        labels, source = label_rules.given_or_inferred(release, knowledge, tell=task.tell)
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


def pixel_layer(
    release: Release, knowledge: Knowledge, device: torch.device | str = "cpu"
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of the first fully connected layer that takes the image, up to a gain and offset per pixel.

    Returns:
        The gradients of its weight [m, pixels] and bias [m]; gain and offset [C, H, W] of the layer's input
        gain * x + offset, x the image.

    Raises:
        InputError: where there is no such layer.
    """
    found = dict(zip(release.names, release.gradients, strict=True))
    for name, gradient in found.items():
        bias = found.get(f"{name.removesuffix('weight')}bias")
        if gradient.dim() == 2 and gradient.shape[1] == math.prod(knowledge.image_shape) and bias is not None:
            affine = _affine_input(knowledge, name.rpartition(".")[0], device)
            if affine is not None:
                return gradient, bias, *affine
    raise InputError(
        "analytic needs a fully connected layer with a bias that takes the pixels: use `threat_model` "
        "malicious-linear, which plants one."
    )


def _affine_input(
    knowledge: Knowledge, name: str, device: torch.device | str
) -> tuple[Tensor, Tensor] | None:
    """Gain and offset of each pixel in the input of the layer of that name; None for any other input."""
    model, seen = copy.deepcopy(knowledge.model).to(device).eval(), []

    def note(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        seen.append(inputs[0])

    model.get_submodule(name).register_forward_pre_hook(note)
    zeros = torch.zeros(1, *knowledge.image_shape, device=device)
    probe = torch.rand(zeros.shape, generator=torch.Generator().manual_seed(0)).to(device)
    with torch.no_grad():
        for images in (zeros, zeros + 1, probe):
            model(images)
    offset, one, mixed = (x.reshape(zeros.shape) for x in seen)
    gain = one - offset
    if bool((gain == 0).any()) or not torch.allclose(gain * probe + offset, mixed, atol=1e-4, rtol=1e-4):
        return None
    return gain[0], offset[0]


def ratio(weights: Tensor, biases: Tensor) -> Tensor:
    """Weight over bias gradient: the image itself where there is no noise; [m, C, H, W] and [m]."""
    return weights / biases[:, None, None, None]


def regression(weights: Tensor, biases: Tensor, noise: float) -> Tensor:
    """The ratio, shrunk because the bias gradient is noisy too: w b / (b^2 + tau^2), tau the noise's std."""
    return weights * (biases / (biases.square() + noise**2))[:, None, None, None]


def wiener(
    weight: Tensor,
    bias: float,
    noise: float,
    bias_noise: float,
    statistics: ImageStatistics,
    shift: Tensor | float = 0.0,
) -> Tensor:
    """Linear minimum-mean-square estimate of x from s x + noise, at the likeliest s.

    Let x be a Gaussian field of mean m and spectrum S. Then each frequency of the weight gradient has mean
    s m and variance s^2 S + tau^2, and the bias gradient has mean s and the variance of its noise. The
    estimate is m + s S / (s^2 S + tau^2) (gradient - s m).

    Args:
        weight: one row's weight gradient, [C, H, W].
        bias: its bias gradient.
        noise: tau, the standard deviation of the noise on each entry of the weight gradient, above 0.
        bias_noise: that on the bias gradient, above 0.
        statistics: of public images of that size.
        shift: what was added to the image to make x, [C, H, W] or a number.

    Returns:
        x, [C, H, W], not clamped.

    Raises:
        InputError: for statistics of images of another size.
    """
    seen, expected, colours, spectrum = _spectra(weight, statistics, shift)
    scale = _likeliest_scale(seen, expected, spectrum, bias, noise, bias_noise)
    gain = scale * spectrum / (scale**2 * spectrum + noise**2)
    return _to_pixels(expected + gain * (seen - scale * expected), colours).float()


def denoised(
    weight: Tensor,
    bias: float,
    noise: float,
    bias_noise: float,
    statistics: ImageStatistics,
    denoiser: nn.Module,
    shift: Tensor | float = 0.0,
) -> Tensor:
    """What a denoiser makes of x from s x + noise, at the s that is likeliest to `wiener`'s Gaussian field.

    Arguments, result and errors are those of `wiener`; the class of a row is not known to the denoiser.
    """
    seen, expected, _, spectrum = _spectra(weight, statistics, shift)
    scale = _likeliest_scale(seen, expected, spectrum, bias, noise, bias_noise)
    with torch.no_grad():
        found = denoiser(weight[None] / scale - shift, weight.new_full((1,), noise / abs(scale)), None)
    return found[0] + shift


def _spectra(
    weight: Tensor, statistics: ImageStatistics, shift: Tensor | float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The frequencies of a weight gradient and of the mean x, the principal colours and the spectrum."""
    if statistics.mean_image.shape != weight.shape:
        raise InputError(
            f"The statistics are of images of shape {tuple(statistics.mean_image.shape)}, not "
            f"{tuple(weight.shape)}: use `prior` none."
        )
    weight, mean, colours, spectrum = (
        x.double().to(weight.device)
        for x in (
            *(weight, statistics.mean_image.to(weight) + shift),
            *(statistics.colours, statistics.spectrum),
        )
    )
    return _to_spectrum(weight, colours), _to_spectrum(mean, colours), colours, spectrum


def _likeliest_scale(
    seen: Tensor, expected: Tensor, spectrum: Tensor, bias: float, noise: float, bias_noise: float
) -> float:
    """The likeliest s, of either sign, given the weight gradient's mean and energy and the bias gradient."""
    from scipy.optimize import minimize_scalar  # slow to import, and needed under noise only

    energy, along, own = seen.abs().square(), (seen * expected.conj()).real, expected.abs().square()

    def negative_log_likelihood(scale: float) -> float:
        """Times 2, less a constant."""
        variance = scale**2 * spectrum + noise**2
        misfit = (energy - 2 * scale * along + scale**2 * own) / variance + variance.log()
        return float(misfit.sum()) + ((bias - scale) / bias_noise) ** 2

    largest = math.sqrt(float(energy.sum() / (spectrum + own).sum()))  # if there were no noise
    sizes = torch.logspace(-3, 0.5, SCALES, dtype=torch.float64).tolist()
    size, sign = min(
        ((size, sign) for size in sizes for sign in (1, -1)),
        key=lambda pair: negative_log_likelihood(pair[1] * pair[0] * largest),
    )
    step = sizes[1] / sizes[0]
    found = minimize_scalar(
        lambda log: negative_log_likelihood(sign * math.exp(log) * largest),
        bounds=(math.log(size / step), math.log(size * step)),
        method="bounded",
        options={"xatol": 1e-9},
    )
    return sign * math.exp(found.x) * largest


def _to_spectrum(image: Tensor, colours: Tensor) -> Tensor:
    return torch.fft.fft2(torch.einsum("kc,chw->khw", colours, image), norm="ortho")


def _to_pixels(spectrum: Tensor, colours: Tensor) -> Tensor:
    return torch.einsum("kc,khw->chw", colours, torch.fft.ifft2(spectrum, norm="ortho").real)

"""Linear layers give images away: exactly without a defence, with the predicted error under noise."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import attacks
import defenses
from attacks.analytic import denoised, pixel_layer, regression, wiener
from dpbench import metrics
from dpbench.data import load_data
from dpbench.generators import Denoiser
from dpbench.privacy import noise_multiplier
from dpbench.privacy.expected_success import psnr_unbiased_probe
from dpbench.protocol import ImageStatistics, InputError, Knowledge, combined
from dpbench.victim.imprint import ImprintModel, edges_for
from dpbench.victim.networks import build

SIZE = (3, 32, 32)
PIXELS = 3 * 32 * 32


@pytest.fixture(scope="module")
def photographs():
    """40 photographs in [0, 1] and labels below 10."""
    small, large = load_data("samples"), load_data("imagenet-samples", size=32)
    return torch.cat([small.images, large.images]).float() / 255, torch.cat([small.labels, large.labels]) % 10


@pytest.fixture(scope="module")
def prior() -> ImageStatistics:
    return load_data("samples").statistics


@pytest.fixture(scope="module")
def linear():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(PIXELS, 10))


def know(model, prior=None, labels=None):
    return Knowledge(
        model, F.cross_entropy, SIZE, 10, (0.5,) * 3, (0.25,) * 3, labels, image_statistics=prior
    )


def rebuilt(model, images, labels, prior=None, believed="wiener", releases=1, seed=0, adaptive=True, **dp):
    chain = defenses.create("dp" if dp else "none", **dp)
    release = combined(chain.releases(model, F.cross_entropy, images, labels, seed=seed, count=releases))
    attack = attacks.create("analytic", prior=believed, adaptive=adaptive)
    return attack(release, know(model, prior, labels), seed=0).images


def test_undefended_linear_layer_gives_every_image_away(photographs, linear):
    for image, label in zip(*photographs, strict=True):
        found = rebuilt(linear, image[None], label[None])
        assert float(metrics.psnr(found, image[None])) > 60


@pytest.mark.parametrize("believed", ["wiener", "none"])
def test_a_victim_that_normalises_gives_the_image_and_not_its_input(photographs, prior, believed):
    class Normalised(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Linear(PIXELS, 10)

        def forward(self, images):
            std = torch.tensor([0.2, 0.25, 0.3])[:, None, None]
            return self.first(((images - 0.4) / std).flatten(1))

    torch.manual_seed(0)
    model = Normalised()
    for image, label in zip(photographs[0][:5], photographs[1][:5], strict=True):
        assert float(metrics.psnr(rebuilt(model, image[None], label[None]), image[None])) > 60
        found = rebuilt(model, image[None], label[None], prior, believed, noise_multiplier=1e-5)
        assert float(metrics.psnr(found, image[None])) > 30


def test_a_layer_that_takes_as_many_features_is_not_taken_for_one_of_pixels(photographs):
    model = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.Sigmoid(), nn.Flatten(), nn.Linear(PIXELS, 10))
    with pytest.raises(InputError, match="malicious-linear"):
        rebuilt(model, photographs[0][:1], photographs[1][:1])


def test_under_noise_as_many_are_recognised_as_when_the_design_was_chosen(photographs, prior):
    """Of these 40, 26 at eps_release 50 (chance: 1); 9 if the layer is fed plain pixels."""
    model = ImprintModel(build("convnet"), edges_for(1, prior), prior, 10).eval()
    sigma, found = noise_multiplier(50, 1e-5), 0
    for i, (image, label) in enumerate(zip(*photographs, strict=True)):
        guess = rebuilt(model, image[None], label[None], prior, seed=i, noise_multiplier=sigma)
        others = torch.cat([photographs[0][:i], photographs[0][i + 1 :]])
        found += int(metrics.identified(guess, image[None], others, prior.mean_image))
    assert found > 18


@pytest.mark.parametrize("sigma", [1e-3, 1e-2, 1e-1])
def test_probe_is_calibrated(photographs, linear, sigma):
    """B = 1, this layer's gradient alone, oracle estimator with delta and clip factor known, unclamped."""
    bound, errors, predicted = 1.0, [], []
    chain = defenses.create("dp", noise_multiplier=sigma, max_grad_norm=bound)
    for i, (image, label) in enumerate(zip(*photographs, strict=True)):
        logits = linear(image[None]).detach()
        delta = logits.softmax(1)[0] - F.one_hot(label, 10)
        norm = float(delta.norm() * (image.square().sum() + 1).sqrt())
        assert norm > bound
        release = chain.release(linear, F.cross_entropy, image[None], label[None], seed=i)
        gradient = release.gradients[0] * release.batch_size
        estimate = delta @ gradient / (delta.square().sum() * bound / norm)
        error = (estimate.view(SIZE) - image).double().square().mean()
        errors.append(-10 * float(error.log10()))
        predicted.append(psnr_unbiased_probe(sigma, norm, float(delta.norm())))
    assert len(errors) >= 32
    assert sum(errors) / len(errors) == pytest.approx(sum(predicted) / len(predicted), abs=0.3)


@pytest.mark.parametrize("size", [1, 4])
def test_planted_layer_gives_the_batch_away(photographs, prior, size):
    apart = photographs[0].mean((1, 2, 3)).argsort()[5::9][:size]  # of different brightness: a bin for each
    images, labels = photographs[0][apart], photographs[1][apart]
    model = ImprintModel(build("convnet"), edges_for(size, prior), prior, 10).eval()
    for label in (labels, (labels + 1) % 10):  # whatever the parity of the class
        found = rebuilt(model, images, label)
        assert (metrics.psnr(found[metrics.match(found, images, "mse")], images) > 60).all()


def test_planted_layer_uses_up_the_clip_norm(photographs, prior):
    images, labels = photographs[0][:1], photographs[1][:1]
    model = ImprintModel(build("convnet"), edges_for(1, prior), prior, 10).eval()
    release = defenses.create("clip", max_grad_norm=1.0).release(
        model, F.cross_entropy, images, labels, seed=0
    )
    weight, bias, _, _ = pixel_layer(release, know(model))
    assert float(weight.square().sum() + bias.square().sum()) > 0.999


def test_clipping_alone_hides_nothing(photographs, prior):
    images, labels = photographs[0][:1], photographs[1][:1]
    model = ImprintModel(build("convnet"), edges_for(1, prior), prior, 10).eval()
    found = rebuilt(model, images, labels, prior, noise_multiplier=1e-9, max_grad_norm=0.1)
    assert float(metrics.psnr(found, images)) > 60


@pytest.mark.parametrize("sigma", [0.003, 0.03])
def test_beliefs_about_images_help(photographs, prior, sigma):
    """Wiener estimate over regression over the plain ratio, mean over the photographs of another data set."""
    scores = {"wiener": 0.0, "none": 0.0, "ratio": 0.0}
    for i, (image, label) in enumerate(zip(*(x[20:] for x in photographs), strict=True)):
        model = ImprintModel(build("convnet"), edges_for(1, prior), prior, 10).eval()
        for name in scores:
            believed, adaptive = ("none", False) if name == "ratio" else (name, True)
            found = rebuilt(
                model, image[None], label[None], prior, believed, 1, i, adaptive, noise_multiplier=sigma
            )
            scores[name] += float(metrics.psnr(found, image[None])) / 20
    assert scores["wiener"] > scores["none"] + 1
    assert scores["none"] >= scores["ratio"] - 0.1


def test_several_releases_are_worth_less_noise(photographs, prior):
    """T releases with sigma sqrt(T) are one with sigma."""
    model = ImprintModel(build("convnet"), edges_for(1, prior), prior, 10).eval()
    once, often = [], []
    for i in range(8):
        image, label = photographs[0][i : i + 1], photographs[1][i : i + 1]
        for found, releases in ((once, 1), (often, 9)):
            guess = rebuilt(
                model, image, label, prior, releases=releases, seed=i, noise_multiplier=0.01 * releases**0.5
            )
            found.append(float(metrics.psnr(guess, image)))
    assert sum(once) / 8 == pytest.approx(sum(often) / 8, abs=1.0)
    assert once != often


def test_wiener_is_the_posterior_mean_of_its_own_model():
    """Images drawn from the prior: the error is S tau^2 / (s^2 S + tau^2), the scale known."""
    generator = torch.Generator().manual_seed(0)
    spectrum = torch.rand(3, 8, 8, generator=generator) + 0.1
    spectrum = (spectrum + spectrum.flip(1, 2).roll((1, 1), (1, 2))) / 2  # of a real field
    prior = ImageStatistics(torch.full((3, 8, 8), 5.0), torch.eye(3), spectrum)
    scale, noise, errors = 0.2, 0.1, []
    for _ in range(400):
        white = torch.randn(3, 8, 8, generator=generator)
        image = 5 + torch.fft.ifft2(torch.fft.fft2(white) * spectrum.sqrt()).real
        weight = scale * image + noise * torch.randn(3, 8, 8, generator=generator)
        errors.append((wiener(weight, scale, noise, noise, prior) - image).square().mean())
    bayes = (spectrum * noise**2 / (scale**2 * spectrum + noise**2)).mean()
    assert float(torch.stack(errors).mean()) == pytest.approx(float(bayes), rel=0.05)


def test_an_untrained_denoiser_does_what_wiener_does(photographs, prior):
    """A fresh `Denoiser` is the Wiener filter, so only the scale and the shift are left to get wrong."""
    fresh, shift = Denoiser(prior, torch.rand(10, *SIZE), (8, 16)), 0.3
    noise = 0.05 * torch.randn(SIZE, generator=torch.Generator().manual_seed(0))
    for scale in (0.7, -0.2):
        weight = scale * (photographs[0][3] + shift) + noise
        given = weight, scale, 0.05, 0.05, prior
        torch.testing.assert_close(denoised(*given, fresh, shift), wiener(*given, shift), atol=1e-4, rtol=0)


def test_regression_tends_to_the_ratio_and_to_nothing():
    weight, bias = torch.full((1, 1, 1, 1), 0.6), torch.tensor([2.0])
    assert float(regression(weight, bias, 1e-6)) == pytest.approx(0.3)
    assert float(regression(weight, bias, 1e3)) == pytest.approx(0, abs=1e-5)


def test_a_model_without_such_a_layer_is_refused(photographs):
    model = build("convnet")
    with pytest.raises(InputError, match="malicious-linear"):
        rebuilt(model, photographs[0][:1], photographs[1][:1])


def test_without_a_denoiser_it_is_refused(photographs, prior, linear):
    with pytest.raises(InputError, match="32 x 32: use `prior` wiener"):
        rebuilt(linear, photographs[0][:1], photographs[1][:1], prior, "denoiser", noise_multiplier=1.0)


def test_without_statistics_wiener_is_refused(photographs, linear):
    with pytest.raises(InputError, match="`prior` none"):
        rebuilt(linear, photographs[0][:1], photographs[1][:1], noise_multiplier=1.0)

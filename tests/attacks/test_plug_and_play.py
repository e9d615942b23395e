"""A denoiser in place of a Gaussian prior: where all is Gaussian, both give the same."""

import pytest
import torch

import attacks
from attacks import plug_and_play
from attacks.public_prior import PublicPrior
from dpbench.data.image_statistics import fit
from dpbench.generators import Denoiser
from dpbench.protocol import InputError, PublicImages, Release, Stage
from tests.helpers.attacks import know, psnr, smooth_images
from tests.helpers.linear_victim import PIXELS, SHAPE, draw, released, told


class Gaussian:
    """The expected image under noise, where images are those of a `PublicPrior`."""

    def __init__(self, prior):
        flat = torch.eye(PIXELS).view(PIXELS, 1, *SHAPE)
        self.middle = prior.images(torch.zeros(1, *SHAPE)).flatten()
        self.root = torch.stack([prior.images(e).flatten() - self.middle for e in flat], 1)
        self.levels = []

    def __call__(self, noisy, noise, labels):
        self.levels.append(float(noise[0]))
        covariance = self.root @ self.root.T
        gain = covariance @ torch.linalg.inv(covariance + noise[0] ** 2 * torch.eye(PIXELS))
        return (self.middle + (noisy.flatten(1) - self.middle) @ gain.T).view_as(noisy)


def with_denoiser(knowledge, denoiser):
    object.__setattr__(knowledge, "image_denoiser", denoiser)
    return knowledge


@pytest.mark.parametrize("noise", [0.05, 0.3])
def test_with_the_priors_own_denoiser_it_finds_the_likeliest_image(monkeypatch, noise):
    monkeypatch.setattr(plug_and_play, "FINE", 1e-3)
    label = torch.tensor([1])
    knowledge, release = told(label), released(draw(label), label, noise)
    truth = attacks.create("map", iterations=300)(release, knowledge, seed=0).images
    denoiser = Gaussian(PublicPrior(knowledge, label))
    attack = attacks.create("map", iterations=300, image_prior="denoiser")
    found = attack(release, with_denoiser(knowledge, denoiser), seed=0)
    torch.testing.assert_close(found.images, truth, atol=5e-3, rtol=0)
    assert denoiser.levels[0] == pytest.approx(plug_and_play.COARSE)
    assert denoiser.levels[-1] == pytest.approx(1e-3)
    assert found.iterations == len(denoiser.levels) == 300


def test_it_wants_a_denoiser_only_where_it_uses_one():
    assert "image_denoiser" in attacks.create("map", image_prior="denoiser").wants()
    assert "image_denoiser" in attacks.create("analytic", prior="denoiser").wants()
    assert "image_denoiser" not in attacks.create("map").wants() | attacks.create("analytic").wants()


def test_without_one_it_is_refused_and_says_what_to_do():
    label = torch.tensor([1])
    with pytest.raises(InputError, match="colour images of 32 x 32: use `image_prior` gaussian"):
        attacks.create("map", image_prior="denoiser")(released(draw(label), label, 0.1), told(label), seed=0)


def test_pure_noise_gives_no_better_than_the_mean_of_the_label(tiny):
    """And hardly worse, at a noise level that the attacker knows."""
    public, labels = smooth_images(90), torch.tensor([2, 0])
    statistics = fit((public[2:] * 255).round().byte(), public[2:].mean(0))
    more = {"public_images": PublicImages(public[2:], torch.arange(88) % 4), "image_statistics": statistics}
    knowledge = with_denoiser(
        know(tiny, labels, (3, 8, 8), 4, **more), Denoiser(statistics, torch.rand(4, 3, 8, 8), (8, 16))
    )
    names, shapes = zip(*((n, p.shape) for n, p in tiny.named_parameters()), strict=True)
    draws, scores = torch.Generator().manual_seed(0), []
    means = torch.stack([knowledge.public_images.of(int(y), 88).mean(0) for y in labels])
    for _ in range(4):
        gradients = tuple(10 * torch.randn(shape, generator=draws) for shape in shapes)
        release = Release(names, gradients, 2, (Stage("noise", {"noise_std": 10.0}),))
        found = attacks.create("map", iterations=100, image_prior="denoiser")(release, knowledge, seed=0)
        scores.append(psnr(found.images, public[:2]) - psnr(means, public[:2]))
    assert abs(sum(scores) / 4) < 0.5

"""A prior that is moved to an estimate of the image, denoised or not; and the denoiser that it takes."""

import pytest
import torch

import attacks
from attacks import maximum_a_posteriori
from attacks.linear_estimate import estimate
from attacks.public_prior import Centred, PublicPrior
from dpbench.data.image_statistics import fit
from dpbench.generators import Denoiser
from dpbench.protocol import InputError, PublicImages, Release, Stage
from tests.helpers.attacks import know, psnr, smooth_images
from tests.helpers.linear_victim import PIXELS, SHAPE, draw, released, told

LABEL = torch.tensor([1])


class Brighter:
    """Stands in for a denoiser, and remembers what it was asked."""

    def __call__(self, noisy, noise, labels):
        self.asked = noisy, noise, labels
        return noisy + 0.05


def with_denoiser(knowledge, denoiser):
    object.__setattr__(knowledge, "image_denoiser", denoiser)
    return knowledge


@pytest.mark.parametrize("noise", [0.05, 0.3])
@pytest.mark.parametrize("centre", ["estimate", "denoised"])
def test_a_linear_victim_gives_the_closed_form(noise, centre):
    """x = c + k^2 S (k^2 S + noise^2)^-1 (seen - c), S the covariance of the prior and k its narrowing."""
    knowledge, release = with_denoiser(told(LABEL), Brighter()), released(draw(LABEL), LABEL, noise)
    prior = PublicPrior(knowledge, LABEL)
    middle = prior.images(torch.zeros(1, *SHAPE)).flatten()
    columns = [prior.images(e.view(1, *SHAPE)).flatten() - middle for e in torch.eye(PIXELS)]
    root = maximum_a_posteriori.NARROW * torch.stack(columns, 1).double()
    of = estimate(release, knowledge, 1200, torch.device("cpu"))
    linear = of.images
    middle = (linear + (0.05 if centre == "denoised" else 0)).flatten().double()
    seen, covariance = release.gradients[0][1].double(), root @ root.T
    gain = covariance @ torch.linalg.inv(covariance + noise**2 * torch.eye(PIXELS))
    found = attacks.create("map", iterations=300, centre=centre)(release, knowledge, seed=0)
    expected = (middle + gain @ (seen - middle)).clamp(0, 1)
    torch.testing.assert_close(found.images.flatten().double(), expected, atol=2e-3, rtol=0)
    torch.testing.assert_close(found.start, of.means.clamp(0, 1))
    if centre == "denoised":
        noisy, level, labels = knowledge.image_denoiser.asked
        torch.testing.assert_close(noisy, linear)
        assert level.tolist() == pytest.approx([maximum_a_posteriori.LEVEL])
        assert labels.tolist() == [1]


def test_images_and_entries_of_a_moved_prior_are_inverse():
    prior = PublicPrior(told(LABEL), LABEL)
    moved, images = Centred(prior, draw(LABEL, seed=4), 0.3), draw(LABEL)
    torch.testing.assert_close(moved.images(moved.entries(images)), images, atol=1e-4, rtol=0)
    torch.testing.assert_close(moved.images(torch.zeros(1, *SHAPE)), draw(LABEL, seed=4), atol=1e-4, rtol=0)
    assert moved.note == prior.note


def test_attacks_want_a_denoiser_only_where_they_use_one():
    assert "image_denoiser" in attacks.create("map", centre="denoised").wants()
    assert "image_denoiser" in attacks.create("analytic", prior="denoiser").wants()
    others = attacks.create("map"), attacks.create("map", centre="mean"), attacks.create("analytic")
    assert not any("image_denoiser" in attack.wants() for attack in others)


def test_without_one_it_is_refused_and_says_what_to_do():
    with pytest.raises(InputError, match="colour images of 32 x 32: use `centre` estimate"):
        attacks.create("map", centre="denoised")(released(draw(LABEL), LABEL, 0.1), told(LABEL), seed=0)


def test_pure_noise_gives_no_better_than_the_mean_of_the_label(tiny):
    """And hardly worse, at a noise level that the attacker knows."""
    public, labels = smooth_images(90), torch.tensor([2, 0])
    statistics = fit((public[2:] * 255).round().byte(), public[2:].mean(0))
    more = {"public_images": PublicImages(public[2:], torch.arange(88) % 4), "image_statistics": statistics}
    knowledge = know(tiny, labels, (3, 8, 8), 4, **more)
    classes = torch.stack([knowledge.public_images.of(y, 88).mean(0) for y in range(4)])
    with_denoiser(knowledge, Denoiser(statistics, classes, (8, 16)))
    names, shapes = zip(*((n, p.shape) for n, p in tiny.named_parameters()), strict=True)
    draws, scores = torch.Generator().manual_seed(0), []
    for centre in ("mean", "estimate", "denoised") * 2:
        gradients = tuple(10 * torch.randn(shape, generator=draws) for shape in shapes)
        release = Release(names, gradients, 2, (Stage("noise", {"noise_std": 10.0}),))
        found = attacks.create("map", iterations=100, centre=centre)(release, knowledge, seed=0)
        scores.append(psnr(found.images, public[:2]) - psnr(classes[labels], public[:2]))
    assert max(map(abs, scores)) < 0.5

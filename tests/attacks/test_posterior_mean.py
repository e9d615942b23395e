from dataclasses import replace

import pytest
import torch

import attacks
from attacks.annealed import LOWEST, draw, in_order, levels
from attacks.denoising import Wiener
from attacks.gaussian_prior import Whitening
from attacks.posterior import Misfit
from attacks.posterior_mean import WITHOUT_DENOISER
from tests.helpers.linear_victim import PIXELS, SHAPE, gradients, released, told
from tests.helpers.linear_victim import draw as drawn


def field(knowledge, count, seed):
    """Images of the Gaussian field that the statistics describe, about their mean image."""
    generator = torch.Generator().manual_seed(seed)
    return Whitening(knowledge.image_statistics).inverse(torch.randn(count, *SHAPE, generator=generator))


class Apart(Misfit):
    """Many chains at once: a release says of each one's image what it says of one image alone."""

    def residuals(self, images):
        each = gradients(images, self.labels[:1].expand(len(images)))
        return ((each - self.target) / self.variance.sqrt()).flatten()


def chains(release, knowledge, label, count):
    """Draws from the posterior whose prior is that field."""
    generator = torch.Generator().manual_seed(0)
    noise = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
    whitening = Whitening(knowledge.image_statistics)
    denoiser = Wiener(whitening, whitening.mean_image.expand(3, *SHAPE).clone())
    public, labels = field(knowledge, 2000, 5), label.expand(count)
    misfit, apart = Misfit(release, knowledge, label), Apart(release, knowledge, labels)
    told_of_each = torch.cat([misfit.residuals(one) for one in public[:3].split(1)])
    torch.testing.assert_close(apart.residuals(public[:3]), told_of_each.detach())
    with torch.no_grad():
        found = levels(20, denoiser, whitening, public, torch.zeros(2000, dtype=torch.long), noise)
        return torch.cat(
            [
                draw(misfit, public[:1], found, denoiser, whitening, noise),
                draw(apart, public[:1].repeat(count, 1, 1, 1), found, denoiser, whitening, noise),
            ]
        )


@pytest.mark.parametrize("noise", [0.03, 0.1, 0.3])
def test_a_gaussian_posterior_has_its_mean_and_variance(noise):
    """The victim's gradient is the image, so under a Gaussian prior the posterior is known."""
    label = torch.tensor([1])
    knowledge = told(label)
    image = field(knowledge, 1, 7)
    release = released(image, label, noise)
    whitening = Whitening(knowledge.image_statistics)
    flat = whitening.turned(torch.eye(PIXELS).view(PIXELS, *SHAPE) * whitening.deviation).flatten(1)
    precision = torch.linalg.inv(flat.T @ flat) + torch.eye(PIXELS) / noise**2
    seen, middle = release.gradients[0][1], whitening.mean_image.flatten()
    mean = middle + torch.linalg.solve(precision, (seen - middle) / noise**2)
    spread = torch.linalg.inv(precision).diagonal().sqrt()
    alone, *found = chains(release, knowledge, label, 1000).flatten(1)
    found = torch.stack(found)
    assert ((alone - mean).abs() < 5 * spread).all()
    assert ((found.mean(0) - mean).abs() < 0.15 * spread + 0.002).all()
    # the last level's images are expected ones, which takes that much of the variance away
    least = (spread.square() - LOWEST**2).clamp_min(0).sqrt()
    assert (found.std(0) < 1.12 * spread + 0.002).all()
    assert (found.std(0) > 0.88 * least - 0.002).all()


def test_no_information_leaves_the_prior():
    label = torch.tensor([1])
    knowledge, release = told(label), released(drawn(label), label, 1e4)
    found = chains(release, knowledge, label, 1000)
    expected = field(knowledge, 2000, 9)
    assert ((found.mean(0) - expected.mean(0)).abs() < 0.2 * expected.std(0)).all()
    assert ((found.std(0) / expected.std(0) - 1).abs() < 0.15).all()


def test_without_a_denoiser_a_wiener_filter_takes_its_place_and_the_note_says_so():
    label = torch.tensor([1])
    knowledge, image = told(label), drawn(label)
    found = attacks.create("posterior-mean")(released(image, label, 0.02), knowledge, seed=0)
    assert found.note == WITHOUT_DENOISER
    assert (found.images - image).norm() < 0.5 * (found.start - image).norm()
    assert found.iterations == 8 * 160


def test_the_denoiser_that_it_is_told_is_the_prior():
    """One that knows the image leaves nothing open, whatever the release says."""

    class Sure(torch.nn.Module):
        def forward(self, noisy, noise, labels):
            return torch.full_like(noisy, 0.25)

    label = torch.tensor([1])
    public = told(label).public_images
    same = replace(public, images=torch.full_like(public.images, 0.25))
    knowledge = replace(told(label), image_denoiser=Sure())
    release = released(drawn(label), label, 0.02)
    loose = attacks.create("posterior-mean", restarts=2)(release, knowledge, seed=0)
    sure = attacks.create("posterior-mean", restarts=2)(
        release, replace(knowledge, public_images=same), seed=0
    )
    assert not loose.note
    assert torch.allclose(sure.images, torch.full_like(sure.images, 0.25))
    assert not torch.allclose(loose.images, sure.images, atol=0.05)


def test_more_draws_come_nearer_to_their_mean():
    label = torch.tensor([1])
    knowledge, image = told(label), drawn(label)
    release, errors = released(image, label, 0.2), {1: 0.0, 4: 0.0}
    for draws in errors:
        for seed in range(4):
            found = attacks.create("posterior-mean", restarts=draws)(release, knowledge, seed=seed)
            errors[draws] += float((found.images - image).square().mean())
    assert errors[4] < errors[1]


@pytest.mark.parametrize("attack", ["map", "posterior-mean"])
def test_where_they_set_out_from_needs_no_gradient(attack):
    """It is shown as a floor."""
    label = torch.tensor([1])
    knowledge = told(label)
    starts = [
        attacks.create(attack, iterations=60)(
            released(drawn(label, seed=s), label, 0.05), knowledge, seed=0
        ).start
        for s in (4, 5)
    ]
    assert torch.equal(*starts)


def test_batches_and_clips():
    labels = torch.tensor([0, 2])
    knowledge, images = told(labels), drawn(labels)
    release = released(images, labels, 0.02, clip=1.0)
    found = attacks.create("posterior-mean", restarts=4)(release, knowledge, seed=0)
    for one, other, start in zip(found.images, images, found.start, strict=True):
        assert (one - other).norm() < (start - other).norm()


def test_images_of_a_label_that_are_drawn_in_another_order_are_not_averaged(monkeypatch):
    labels, turn = torch.tensor([1, 0, 1]), []
    knowledge, images = told(labels), drawn(labels).clamp(0, 1)

    def swapping(*_, **__):
        turn.append(1)
        return images if len(turn) % 2 else images[[2, 1, 0]]

    monkeypatch.setattr("attacks.posterior_mean.draw", swapping)
    release = released(images, labels, 0.02)
    found = attacks.create("posterior-mean", restarts=4)(release, knowledge, seed=0).images
    torch.testing.assert_close(found, images)


def test_images_of_different_labels_stay_where_they_are():
    images, labels = torch.rand(4, 3, 2, 2), torch.tensor([0, 1, 0, 2])
    found = in_order(images, images.flip(0), labels)
    assert torch.equal(found[[1, 3]], images[[1, 3]])
    assert torch.equal(in_order(images, torch.zeros_like(images), labels), images)


def test_a_gradient_that_is_nearly_zero_leaves_no_nan():
    """Matched to a thousandth of its norm, as an image that the victim is sure of; squares overflowed."""
    labels = torch.tensor([1])
    knowledge, images = told(labels), drawn(labels).clamp(0, 1)
    release = released(images, labels, 0.0)
    tiny = tuple(1e-12 * g for g in release.gradients)
    found = attacks.create("posterior-mean", restarts=1)(replace(release, gradients=tiny), knowledge, seed=0)
    assert bool(found.images.isfinite().all())

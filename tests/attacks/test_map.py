from dataclasses import replace

import pytest
import torch

import attacks
from attacks.maximum_a_posteriori import likeliest
from attacks.posterior import Posterior
from attacks.public_prior import PublicPrior, shrunk_covariance
from dpbench.data.image_statistics import fit
from dpbench.protocol import InputError, PublicImages, Release, Stage
from tests.helpers.attacks import know, smooth_images
from tests.helpers.linear_victim import PIXELS, SHAPE, draw, released, told


def closed_form(prior, seen, noise):
    """Posterior mean of a Gaussian image that is seen under noise."""
    flat = torch.eye(PIXELS).view(PIXELS, *SHAPE)
    wide = PublicPrior.__new__(PublicPrior)  # the same field for as many images as there are pixels
    wide.whitening, wide.means, wide.roots = prior.whitening, prior.means.expand(PIXELS, -1), prior.roots
    wide.roots = prior.roots.expand(PIXELS, -1, -1)
    middle = wide.images(torch.zeros_like(flat))[0].flatten().double()
    root = wide.images(flat).flatten(1).double() - middle
    covariance = root.T @ root
    gain = covariance @ torch.linalg.inv(covariance + noise**2 * torch.eye(PIXELS, dtype=torch.float64))
    return middle + gain @ (seen.flatten().double() - middle), covariance


@pytest.mark.parametrize("noise", [0.05, 0.3])
def test_a_linear_victim_gives_the_posterior_mean(noise):
    """The gradient is the image, so all is Gaussian, and the mode is the mean."""
    label = torch.tensor([1])
    knowledge, release = told(label), released(draw(label), label, noise)
    truth, _ = closed_form(PublicPrior(knowledge, label), release.gradients[0][1], noise)
    found = attacks.create("map", centre="mean", iterations=300)(release, knowledge, seed=0)
    torch.testing.assert_close(found.images.flatten().double(), truth.clamp(0, 1), atol=2e-3, rtol=0)


def test_the_prior_has_the_covariance_of_the_labels_images():
    label = torch.tensor([2])
    knowledge = told(label, each=3000)
    images = knowledge.public_images.of(2, 3000).flatten(1).double()
    _, covariance = closed_form(PublicPrior(knowledge, label), images[0], 0.1)
    torch.testing.assert_close(covariance, images.T.cov(correction=0), atol=2e-4, rtol=0.05)


def test_images_and_entries_are_inverse():
    labels = torch.tensor([2, 0])
    prior = PublicPrior(told(labels), labels)
    images = draw(labels)
    torch.testing.assert_close(prior.images(prior.entries(images)), images, atol=1e-4, rtol=0)


def test_large_images_are_a_stationary_field_about_the_labels_mean(monkeypatch):
    monkeypatch.setattr("attacks.public_prior.ENTRIES", 5)
    label = torch.tensor([1])
    knowledge = told(label, each=37)  # others than in other tests, whose covariance is remembered
    prior = PublicPrior(knowledge, label)
    assert prior.roots is None
    found = attacks.create("map", iterations=1)(released(draw(label), label, 0.1), knowledge, seed=0)
    assert "too large for a covariance of each label" in found.note
    mean = knowledge.public_images.of(1, 37).mean(0)
    torch.testing.assert_close(prior.images(torch.zeros(1, *SHAPE))[0], mean, atol=1e-4, rtol=0)


def test_the_covariance_is_shrunk_where_images_are_few():
    generator = torch.Generator().manual_seed(0)
    scales = torch.tensor([3.0, 1.0, 1.0, 0.3, 0.1] * 8)
    rows = torch.randn(20, 40, generator=generator) * scales
    truth, sample = torch.diag(scales.square()), rows.T @ rows / 20
    assert (shrunk_covariance(rows) - truth).norm() < (sample - truth).norm()
    assert torch.linalg.eigvalsh(shrunk_covariance(rows)).min() > 0.01
    many = torch.randn(20_000, 40, generator=generator) * scales
    torch.testing.assert_close(shrunk_covariance(many), many.T @ many / 20_000, atol=0.1, rtol=0)


@pytest.fixture
def two(tiny):
    """What a smooth victim releases of two images, and what is known of them."""
    public, labels = smooth_images(90), torch.tensor([2, 0])
    classes = torch.arange(88) % 4
    more = {"public_images": PublicImages(public[2:], classes)}
    knowledge = know(tiny, labels, (3, 8, 8), 4, **more)

    statistics = fit((public[2:] * 255).round().byte(), public[2:].mean(0))
    object.__setattr__(knowledge, "image_statistics", statistics)
    return tiny, public[:2], labels, knowledge


def release_of(model, images, labels, stages, clip=None, keep=None):
    total = None
    for x, y in zip(images.split(1), labels.split(1), strict=True):
        loss = torch.nn.functional.cross_entropy(model(x), y)
        rows = torch.autograd.grad(loss, list(model.parameters()))
        norm = torch.cat([g.flatten() for g in rows]).norm()
        rows = [g * (1 if clip is None else min(1.0, float(clip / norm))) for g in rows]
        total = rows if total is None else [a + b for a, b in zip(total, rows, strict=True)]
    total = [t / len(images) for t in total]
    if keep is not None:
        total = [torch.where(t.abs() >= t.abs().quantile(1 - keep), t, 0.0) for t in total]
    names = tuple(name for name, _ in model.named_parameters())
    return Release(names, tuple(total), len(images), stages)


CASES = {
    "none": ((), None, None),
    "clip": ((Stage("clip", {"max_grad_norm": 0.2}),), 0.2, None),
    "dp-ftrl": (
        (Stage("dp-ftrl", {"max_grad_norm": 0.2, "noise_multiplier": 1e-6, "bands": 16}),),
        0.2,
        None,
    ),
    "prune": ((Stage("prune", {"prune_ratio": 0.5}),), None, 0.5),
}


@pytest.mark.parametrize("case", CASES)
def test_the_truth_explains_the_release_and_the_gradient_is_the_slope(two, case):
    """Clipping and pruning are done as the defence does them."""
    model, images, labels, knowledge = two
    stages, clip, keep = CASES[case]
    release = release_of(model, images, labels, stages, clip, keep)
    posterior = Posterior(release, knowledge, labels, PublicPrior(knowledge, labels))
    truth = posterior.prior.entries(images)
    assert posterior(truth)[0] < 1e-2
    point = truth + 0.3 * torch.randn(truth.shape, generator=torch.Generator().manual_seed(0))
    value, gradient = posterior(point)
    assert value > 10
    step = torch.randn(truth.shape, generator=torch.Generator().manual_seed(1))
    ahead, behind = (float(posterior(point + sign * 1e-2 * step)[0]) for sign in (1, -1))
    assert abs((ahead - behind) / 2e-2 - float((gradient * step).sum())) < 0.02 * float(
        gradient.norm() * step.norm()
    )


def test_the_noise_decides_how_much_the_release_weighs(two):
    model, images, labels, knowledge = two
    release = release_of(model, images, labels, ())
    prior = PublicPrior(knowledge, labels)
    point = prior.entries(images) + 0.5
    noisy = Release(release.names, release.gradients, 2, (Stage("noise", {"noise_std": 1.0}),))
    four = replace(noisy, repeats=(release.gradients,) * 4)
    loud, twice = (Posterior(each, knowledge, labels, prior)(point)[0] for each in (noisy, four))
    torch.testing.assert_close(twice, 4 * loud)


def test_without_statistics_it_is_refused():
    label = torch.tensor([1])
    knowledge = told(label)
    object.__setattr__(knowledge, "image_statistics", None)
    with pytest.raises(InputError, match="map needs statistics"):
        attacks.create("map")(released(draw(label), label, 0.1), knowledge, seed=0)


def test_a_search_that_was_finite_nowhere_is_an_error():
    nowhere = lambda entries: (torch.tensor(torch.nan), torch.zeros_like(entries))  # noqa: E731
    with pytest.raises(FloatingPointError, match="NaN or infinite"):
        likeliest(nowhere, torch.zeros(1, *SHAPE), 0.1, 2, lambda *_: None)


@pytest.mark.parametrize("centre", ["estimate", "mean"])
def test_two_images_of_one_label_are_told_apart(two, centre):
    """Where the search sets out from is the same for both, and so is every step from there."""
    model, images, _, knowledge = two
    labels = torch.tensor([2, 2])
    release = release_of(model, images, labels, ())
    knowledge = replace(knowledge, labels=labels)
    found = attacks.create("map", centre=centre, iterations=150)(release, knowledge, seed=0).images
    assert float((found[0] - found[1]).abs().max()) > (1e-3 if centre == "estimate" else 0.03)

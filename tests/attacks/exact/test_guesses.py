"""Starts at images that were made up: nearer to the real rows than chance, and with what is still missing."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from attacks.exact import first_layer, layers
from attacks.exact.guesses import MadeUp, Unmixed, back, through
from attacks.exact.independent import independent
from dpbench.data.image_statistics import fit
from tests.helpers.attacks import know, photograph, plain_release, smooth_images

SHAPE, CLASSES, SIZE = (3, 8, 8), 10, 16


class Scaled(nn.Module):
    """Images in [0, 1] to about -2 to 2."""

    def forward(self, x):
        return (x - 0.5) / 0.25


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return nn.Sequential(Scaled(), nn.Flatten(), nn.Linear(192, 128), nn.ReLU(), nn.Linear(128, CLASSES))


@pytest.fixture(scope="module")
def drawn():
    """A batch, its labels, and statistics of other images."""
    images = smooth_images(200 + SIZE)
    others = images[:200]
    return images[200:], torch.arange(SIZE).mul(3) % 7, fit((others * 255).byte(), others.mean(0))


@pytest.fixture(scope="module")
def release(model, drawn):
    return plain_release(model, *drawn[:2])


def made_up(model, release, statistics):
    knowledge = know(model, None, SHAPE, CLASSES, image_statistics=statistics)
    chain, labels = layers.read(model, SHAPE), torch.arange(CLASSES)
    gradient = release.gradients[0].double()
    return MadeUp(knowledge, chain, gradient, labels, torch.Generator().manual_seed(0))


def rows_of(model, images, labels):
    """Normalised D, a row for each image."""
    z = model[:3](images).detach().requires_grad_()
    loss = F.cross_entropy(model[3:](z), labels, reduction="sum")
    return F.normalize(torch.autograd.grad(loss, z)[0].double())


def nearest(rows, truth):
    """Median over `rows` of the largest cosine with a row of `truth`."""
    return float((F.normalize(rows) @ truth.T).abs().amax(1).median())


def test_they_are_nearer_to_real_rows_than_random_mixtures_are(model, drawn, release):
    images, labels, statistics = drawn
    truth = rows_of(model, images, labels)
    generator = torch.Generator().manual_seed(0)
    mixtures = torch.randn(64, SIZE, generator=generator).double() @ truth
    proposed = made_up(model, release, statistics)(torch.zeros(64).double(), None)
    assert proposed.shape == (64, 128)
    span = torch.linalg.qr(truth.T).Q
    assert nearest(proposed @ span @ span.T, truth) > nearest(mixtures, truth) + 0.1


def test_later_ones_lead_to_the_sample_that_is_missing(model, drawn, release):
    """Orthogonal to all rows but one, there is one mixture of inputs: the image that is missing."""
    images, labels, statistics = drawn
    truth = rows_of(model, images, labels)
    inside, others = torch.linalg.qr(truth.T).Q.T, torch.linalg.qr(truth[1:].T).Q
    missing = F.normalize(torch.linalg.svd(inside - inside @ others @ others.T)[2][:1])
    proposed = made_up(model, release, statistics)(torch.ones(64).double(), missing)
    cosine = (F.normalize(proposed) @ truth.T).abs().amax(0)
    assert cosine[0] > 0.95
    assert cosine[0] > cosine[1:].max()


@pytest.mark.parametrize("told", [False, True])
def test_a_batch_is_found_that_random_starts_do_not_find(model, drawn, release, told, monkeypatch):
    monkeypatch.setattr(first_layer, "is_image", lambda shape: False)
    images, _, statistics = drawn
    knowledge = know(model, None, SHAPE, CLASSES, image_statistics=statistics if told else None)
    chain, generator = layers.read(model, SHAPE), torch.Generator().manual_seed(0)
    found, why = first_layer.images(release, knowledge, chain, generator, starts=256)
    if not told:
        assert found is None
        assert "too few or too alike" in why
        return
    assert int((found.residual < 1e-3).sum()) == SIZE
    errors = torch.cdist(images.flatten(1).double(), found.images.flatten(1)).amin(1)
    assert errors.max() < 1e-2


def test_statistics_of_other_sizes_are_left_alone(model, drawn, release, monkeypatch):
    monkeypatch.setattr(first_layer, "is_image", lambda shape: False)
    odd = fit(torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.zeros(3, 4, 4))
    knowledge = know(model, None, SHAPE, CLASSES, image_statistics=odd)
    chain, generator = layers.read(model, SHAPE), torch.Generator().manual_seed(0)
    found, _ = first_layer.images(release, knowledge, chain, generator, starts=256)
    assert found is None  # random starts, as without statistics


@pytest.mark.parametrize("kind", ["photographs", "noise"])
def test_photographs_are_told_apart_in_their_mixtures_and_noise_is_not(kind):
    generator = torch.Generator().manual_seed(0)
    images = photograph(0, 8)[0].double()
    if kind == "noise":
        images = torch.randn(images.shape, generator=generator).double()
    mixtures = torch.randn(8, 8, generator=generator).double() @ (images - 0.4).flatten(1)
    found = independent(mixtures, images.shape[1:], generator)
    assert torch.linalg.matrix_rank(torch.cat([found, mixtures])) == 8
    alike = torch.corrcoef(torch.cat([images.flatten(1), found]))[:8, 8:].abs().amax(1).median()
    assert alike > 0.9 if kind == "photographs" else alike < 0.8


def test_rows_at_images_that_were_unmixed_are_near():
    """Among the rows' mixtures, those of eight photographs, without anything public."""
    torch.manual_seed(0)
    model = nn.Sequential(Scaled(), nn.Flatten(), nn.Linear(3072, 256), nn.ReLU(), nn.Linear(256, CLASSES))
    images, labels = photograph(0, 8)
    truth, release = rows_of(model, images, labels), plain_release(model, images, labels)
    weight, bias = (g.double() for g in release.gradients[:2])
    chain, generator = layers.read(model, images.shape[1:]), torch.Generator().manual_seed(0)
    span = torch.linalg.qr(truth.T).Q.T
    knowledge = know(model, None, images.shape[1:], CLASSES)
    found = Unmixed(knowledge, chain, weight, bias, generator)(span, span)
    assert nearest(found, truth) > 0.98
    mixtures = torch.randn(8, 8, generator=generator).double() @ truth
    assert nearest(mixtures, truth) < 0.8


def test_a_batch_is_found_without_statistics(model, drawn, release):
    images, _, _ = drawn
    chain, generator = layers.read(model, SHAPE), torch.Generator().manual_seed(0)
    told, knowledge = [], know(model, None, SHAPE, CLASSES)
    found, _ = first_layer.images(release, knowledge, chain, generator, 256, lambda *each: told.append(each))
    assert int((found.residual < 1e-3).sum()) == SIZE
    assert told[-1] == (SIZE, SIZE)
    assert torch.cdist(images.flatten(1).double(), found.images.flatten(1)).amin(1).max() < 1e-2


def test_images_and_inputs_of_the_first_layer_are_undone_by_each_other(model):
    chain, images = layers.read(model, SHAPE), smooth_images(2).double()
    assert torch.allclose(through(chain, images), ((images - 0.5) / 0.25).flatten(1))
    assert torch.allclose(back(chain, through(chain, images)), images.flatten(1))

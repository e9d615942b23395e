"""The closed form gives the image back, and says where it does not."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import attacks
import defenses
from attacks.exact.backwards import peeled
from attacks.exact.explained import CERTAIN, unexplained
from dpbench.data import load_data
from dpbench.victim import load
from tests.helpers.attacks import know, photograph, plain_release, psnr

SIZE = 12


def chain(*middle, filters=24, features=None):
    torch.manual_seed(1)
    width = filters * (SIZE // 2) ** 2 if features is None else features
    conv = nn.Conv2d(3, filters, 3, stride=2, padding=1)
    return nn.Sequential(conv, *middle, nn.Flatten(), nn.Linear(width, 10)).eval()


@pytest.fixture
def picture():
    images, labels = photograph(3)
    return F.interpolate(images, SIZE, mode="area"), labels


def answer(model, release, labels=None, size=SIZE, seed=0):
    return attacks.create("peel", iterations=2, engine="eager")(
        release, know(model, labels, (3, size, size)), seed=seed
    )


def released(model, picture, defense="none", **values):
    return defenses.create(defense, **values).release(model, F.cross_entropy, *picture, seed=0)


CHAINS = {
    "ReLU": chain(nn.ReLU(), filters=48),
    "leaky ReLU": chain(nn.LeakyReLU(0.1)),
    "sigmoid": chain(nn.Sigmoid()),
    "tanh": chain(nn.Tanh()),
    "batch norm": chain(nn.BatchNorm2d(48), nn.ReLU(inplace=True), filters=48),
    "two layers": chain(nn.LeakyReLU(0.2), nn.Conv2d(24, 24, 3, padding=1, groups=2, bias=False), nn.Tanh()),
    "no convolution": nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE**2, 8), nn.GELU(), nn.Linear(8, 10)),
    "pooling behind": chain(nn.Tanh())
    .append(nn.Unflatten(1, (1, 10)))
    .append(nn.AvgPool1d(1))
    .append(nn.Flatten()),
}


@pytest.mark.parametrize("defense", ["none", "clip"])
@pytest.mark.parametrize("name", CHAINS)
def test_a_chain_gives_its_image_back(name, defense, picture):
    model = CHAINS[name]
    values = {"max_grad_norm": 0.01} if defense == "clip" else {}
    found = answer(model, released(model, picture, defense, **values))
    assert found.certified.tolist() == [True]
    assert found.residual.shape == (1,)
    assert float(found.residual) <= CERTAIN
    assert psnr(found.images, picture[0]) > 60
    assert torch.equal(found.labels, picture[1])
    assert (found.label_source, found.note) == ("inferred", "")


@pytest.mark.parametrize("training", ["early", "trained"])
def test_the_shipped_victim_gives_a_photograph_back(training):
    images, labels = photograph(2)
    model = load("convnet", "none", training, None, load_data("samples"), 32).model
    found = answer(model, plain_release(model, images, labels), labels, size=32)
    assert found.certified.tolist() == [True]
    assert psnr(found.images, images) > 60
    assert found.label_source == "known"


STOPPED = {
    "noise": (CHAINS["tanh"], {"defense": "noise", "noise_std": 1e-6}, "it needs exact gradients, and noise"),
    "prune": (
        CHAINS["tanh"],
        {"defense": "prune", "prune_ratio": 0.5},
        "it needs exact gradients, and prune",
    ),
    "pooling": (
        chain(nn.ReLU(), nn.MaxPool2d(2), features=24 * 9),
        {},
        "it needs a chain of convolutions and activations up to a fully connected layer with a bias, and "
        "this one ends at the layer `2` (MaxPool2d)",
    ),
}


@pytest.mark.parametrize("name", STOPPED)
def test_where_it_does_not_apply_it_says_so_and_the_search_takes_over(name, picture):
    model, values, why = STOPPED[name]
    found = answer(model, released(model, picture, **values))
    assert found.note.startswith(f"The closed form did not apply, because {why}")
    assert "; the search took over. There were no statistics of public images" in found.note
    assert found.certified.tolist() == [False]
    assert found.residual.isnan().all()
    assert found.iterations == 2


def test_a_batch_of_two_is_left_to_the_search(picture):
    model, (images, labels) = CHAINS["tanh"], picture
    release = plain_release(model, images.expand(2, -1, -1, -1), labels.expand(2))
    found = answer(model, release)
    assert "the batch has 2" in found.note
    assert found.certified.tolist() == [False, False]


def test_too_few_filters_are_noticed(picture):
    model = chain(nn.ReLU(), filters=2)
    release = released(model, picture)
    found = answer(model, release)
    assert found.certified.tolist() == [False]
    assert found.note.startswith("The closed form's image leaves")
    assert float(found.residual) > CERTAIN
    _, image, determined, expected = peeled(release, know(model, None, (3, SIZE, SIZE)))
    assert not determined
    assert expected > 1e-2
    assert torch.allclose(found.start, image, atol=1e-6)  # the search set out from it


def test_noise_that_nobody_declared_is_noticed(picture):
    model = CHAINS["tanh"]
    release = plain_release(model, *picture)
    generator = torch.Generator().manual_seed(0)
    noisy = tuple(g + 1e-3 * g.norm() * torch.randn(g.shape, generator=generator) for g in release.gradients)
    found = answer(model, replace(release, gradients=noisy))
    assert found.certified.tolist() == [False]
    assert float(found.residual) > CERTAIN


@pytest.mark.parametrize("name", ["ReLU", "sigmoid", "two layers"])
def test_the_certificate_refutes_a_wrong_image(name, picture):
    model, (images, labels) = CHAINS[name], picture
    release, knowledge = plain_release(model, images, labels), know(model, labels, (3, SIZE, SIZE))
    last = f"{len(model) - 1}"
    wrong = images.clone()
    wrong[0, :, 5, 5] += 0.02
    assert unexplained(release, knowledge, last, images) < CERTAIN / 10
    assert unexplained(release, knowledge, last, wrong) > 2 * CERTAIN
    assert unexplained(release, knowledge, last, photograph(5)[0][..., :SIZE, :SIZE]) > 100 * CERTAIN


def test_an_image_that_the_release_leaves_open_is_not_certified(picture):
    """No filter sees every other column, so no gradient knows of it, and the image explains the release."""
    torch.manual_seed(1)
    model = nn.Sequential(nn.Conv2d(3, 24, (3, 1), stride=(1, 2), padding=(1, 0)), nn.Tanh(), nn.Flatten())
    model.append(nn.Linear(24 * SIZE * SIZE // 2, 10)).eval()
    found = answer(model, released(model, picture))
    assert found.certified.tolist() == [False]
    assert float(found.residual) <= CERTAIN
    assert found.note.startswith("The image explains the release, and so may others: expect an error of")
    seen = (found.images - picture[0])[..., ::2]
    assert float(seen.abs().max()) < 1e-3

import time

import pytest
import torch

import attacks
from attacks.base import Task
from attacks.posterior import Posterior
from attacks.posterior_mean import sample
from attacks.public_prior import PublicPrior
from tests.helpers.linear_victim import PIXELS, SHAPE, draw, released, told


def task(release, knowledge, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return Task(release, knowledge, generator, torch.device("cpu"), lambda *_: None, time.perf_counter())


@pytest.mark.parametrize("noise", [0.03, 0.2])
def test_a_gaussian_posterior_has_its_mean_and_variance(noise):
    """The victim's gradient is the image: x = A z + m is seen under noise, so z is Gaussian given that."""
    label = torch.tensor([1])
    knowledge, release = told(label), released(draw(label), label, noise)
    prior = PublicPrior(knowledge, label)
    middle = prior.images(torch.zeros(1, *SHAPE)).flatten()
    columns = torch.stack([prior.images(e.view(1, *SHAPE)).flatten() - middle for e in torch.eye(PIXELS)], 1)
    covariance = torch.linalg.inv(torch.eye(PIXELS) + columns.T @ columns / noise**2)
    mean = covariance @ columns.T @ (release.gradients[0][1] - middle) / noise**2
    posterior = Posterior(release, knowledge, label, prior)
    chain = sample(posterior, torch.zeros(1, *SHAPE), 700, task(release, knowledge))
    spread = covariance.diagonal().sqrt()
    assert ((chain.entries.flatten() - mean).abs() < 0.3 * spread + 0.02).all()
    assert ((chain.spread.flatten() / spread - 1).abs() < 0.25).all()
    assert chain.accepted > 0.4


def test_no_information_leaves_the_prior():
    label = torch.tensor([1])
    knowledge, release = told(label), released(draw(label), label, 1e4)
    posterior = Posterior(release, knowledge, label, PublicPrior(knowledge, label))
    chain = sample(posterior, 3 * torch.ones(1, *SHAPE), 300, task(release, knowledge))
    assert chain.accepted > 0.99
    assert (chain.entries.abs() < 0.4).all()
    assert ((chain.spread - 1).abs() < 0.2).all()


def test_the_attack_gives_the_mean_of_the_samples_and_says_how_they_mixed():
    label = torch.tensor([1])
    knowledge, release = told(label), released(draw(label), label, 0.05)
    likeliest = attacks.create("map", centre="mean", iterations=300)(release, knowledge, seed=0)
    found = attacks.create("posterior-mean", iterations=800)(release, knowledge, seed=0)
    # all is Gaussian here, so the mode is the mean
    assert (found.images - likeliest.images).norm() < 0.1 * (likeliest.start - draw(label)).norm() + 0.05
    assert found.note.startswith("The sampler accepted ")
    assert found.iterations == 800


@pytest.mark.parametrize("attack", ["map", "posterior-mean"])
def test_where_they_set_out_from_needs_no_gradient(attack):
    """It is shown as a floor."""
    label = torch.tensor([1])
    knowledge = told(label)
    starts = [
        attacks.create(attack, iterations=60)(
            released(draw(label, seed=s), label, 0.05), knowledge, seed=0
        ).start
        for s in (4, 5)
    ]
    assert torch.equal(*starts)


def test_too_few_iterations_to_sample_are_said():
    label = torch.tensor([1])
    knowledge, release = told(label), released(draw(label), label, 0.05)
    found = attacks.create("posterior-mean", iterations=4)(release, knowledge, seed=0)
    assert found.note.startswith("There were too few iterations to sample")

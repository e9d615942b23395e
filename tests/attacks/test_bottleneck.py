"""The noise of PRECODE is read from the release, and what is left is a network without a defence."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import attacks
import defenses
from attacks import bottleneck
from attacks.adaptation import support
from dpbench.protocol import InputError, bottleneck_head
from tests.helpers.attacks import know, psnr, smooth_images

torch.set_num_threads(1)
WIDTH = 16


@pytest.fixture(scope="module")
def relu():
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = nn.Sequential(nn.Flatten(), nn.Linear(192, 64), nn.ReLU(), nn.Linear(64, 4)).eval()
    with torch.no_grad():  # each image leaves units of its own at zero
        model[1].bias.copy_(-model[1].weight.sum(1) / 2)
    return model


def told(model, batch, labels=None, defence="precode", seed=0, **given):
    """Release, knowledge and images."""
    chain = defenses.create(defence, precode_width=WIDTH, **given)
    images = torch.rand(batch, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    classes = torch.tensor([2, 0, 3, 0])[:batch]
    changed, loss = chain.victim(model, F.cross_entropy)
    release = chain.release(model, F.cross_entropy, images, classes, seed=seed)
    known = classes if labels is None else labels
    knowledge = replace(know(changed, known, (3, 8, 8), 4), loss=loss)
    return release, knowledge, images


def drawn(batch, seed=0):
    return torch.randn(batch, WIDTH, generator=torch.Generator().manual_seed(seed))


def generator():
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("batch", [1, 2, 4])
@pytest.mark.parametrize("beta", [0.0, 1e-3, 0.1])
def test_noise_and_labels_are_read_exactly(relu, batch, beta):
    release, knowledge, _ = told(relu, batch, precode_beta=beta)
    found = bottleneck.read(release, replace(knowledge, labels=None), generator())
    truth = drawn(batch)
    apart = (found.noise[:, None] - truth).abs().amax(2)
    assert float(apart.min(1).values.max()) < 1e-2
    order = apart.argmin(1)
    assert sorted(order.tolist()) == list(range(batch))
    assert torch.equal(found.labels, torch.tensor([2, 0, 3, 0])[order])


def test_with_its_noise_the_network_has_the_gradient_that_was_released(relu):
    for batch in (1, 4):
        release, knowledge, images = told(relu, batch)
        plain, known, read = bottleneck.in_the_know(release, knowledge, generator(), True)
        assert plain.defense == ()
        assert not read  # the labels were known
        noise = bottleneck_head(known.model)[1].bottleneck.noise
        if batch == 1:
            torch.testing.assert_close(noise, drawn(1), atol=1e-3, rtol=0)
        order = (noise[:, None] - drawn(batch)).abs().sum(2).argmin(1)  # among equal labels any will do
        value = knowledge.loss(known.model(images[order]), known.labels)
        again = torch.autograd.grad(value, list(known.model.parameters()))
        torch.testing.assert_close(list(again), list(release.gradients), atol=1e-5, rtol=1e-3)


def test_labels_are_read_too_and_contradictions_are_not_believed(relu):
    release, knowledge, _ = told(relu, 2)
    unknown = replace(knowledge, labels=None)
    _, found, read = bottleneck.in_the_know(release, unknown, generator(), True)
    assert read
    assert sorted(found.labels.tolist()) == [0, 2]
    answer = attacks.create("inverting-gradients", iterations=3)(release, unknown, seed=0)
    assert (answer.label_source, sorted(answer.labels.tolist())) == ("inferred", [0, 2])
    assert bottleneck.UNREAD not in answer.note
    wrong = replace(knowledge, labels=torch.tensor([1, 1]))
    same, found, read = bottleneck.in_the_know(release, wrong, generator(), True)
    assert (same.defense, read) == (release.defense, False)
    assert found.labels.tolist() == [1, 1]


@pytest.mark.parametrize(
    ("defence", "given", "batch"),
    [("precode+noise", {"noise_std": 1e-3}, 1), ("precode+prune", {}, 1), ("precode", {}, 3)],
)
def test_what_cannot_be_read_gets_noise_of_the_attackers_own(tiny, defence, given, batch):
    """Behind another stage, or of several samples that no ReLU tells apart."""
    release, knowledge, _ = told(tiny, batch, defence=defence, **given)
    same, found, read = bottleneck.in_the_know(release, knowledge, generator(), True)
    assert (same.defense, read) == (release.defense, False)
    noise = bottleneck_head(found.model)[1].bottleneck.noise
    assert noise.shape == (batch, WIDTH)
    assert bottleneck_head(knowledge.model)[1].bottleneck.noise is None
    for adaptive in (True, False):  # it is said, where reading was tried
        asked = attacks.create("inverting-gradients", iterations=2, adaptive=adaptive)
        assert (bottleneck.UNREAD in asked(release, knowledge, seed=0).note) is adaptive
    before = noise.clone()
    bottleneck.redrawing(found.model, release, torch.Generator().manual_seed(9))(0, [])
    assert not torch.equal(bottleneck_head(found.model)[1].bottleneck.noise, before)


def test_what_the_noise_reaches_most_is_ignored_where_it_is_not_read(tiny):
    release, _, _ = told(tiny, 3)
    kept = {name: bool(s.all()) for name, s in zip(release.names, support(release), strict=True)}
    assert kept == {name: not name.startswith("fc.") for name in release.names}


def test_any_other_release_comes_back_as_it_is(relu):
    knowledge = know(relu, torch.tensor([1]), (3, 8, 8), 4)
    chain = defenses.create("noise")
    release = chain.release(relu, F.cross_entropy, smooth_images(1), torch.tensor([1]), seed=0)
    drawing = generator()
    state = drawing.get_state()
    same = bottleneck.in_the_know(release, knowledge, drawing, True)
    assert (same[0] is release, same[1] is knowledge, same[2]) == (True, True, False)
    assert torch.equal(drawing.get_state(), state)


def test_who_reads_the_noise_explains_the_release_and_who_draws_it_does_not(tiny):
    """One image, whose noise any features give away; the deviation of the codes is about 1."""
    _, knowledge, _ = told(tiny, 1)
    images = smooth_images(1)
    with torch.no_grad():
        bottleneck_head(knowledge.model)[1].bottleneck.encoder.bias[WIDTH:] += 5
    chain = defenses.create("precode", precode_width=WIDTH)
    release = chain.release(knowledge.model, knowledge.loss, images, torch.tensor([2]), seed=0)
    made = {on: attacks.create("idlg", iterations=40, restarts=1, adaptive=on) for on in (True, False)}
    found = {on: attack(release, knowledge, seed=1) for on, attack in made.items()}
    assert psnr(found[True].images, images) > 40
    assert found[True].gradient_distance < 1e-3 * found[False].gradient_distance


def test_a_victim_with_noise_of_the_attackers_own_is_no_secret_to_the_fit(relu):
    """The release does not fit a model without the bottleneck."""
    release, _, _ = told(relu, 1)
    with pytest.raises(InputError, match="do not fit"):
        attacks.create("inverting-gradients")(release, know(relu, None, (3, 8, 8), 4), seed=0)


@pytest.fixture(scope="module")
def convolutions():
    """What `smooth_images` come back from."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        conv = nn.Conv2d(3, 48, 3, stride=2, padding=1)
        return nn.Sequential(conv, nn.ReLU(), nn.Flatten(), nn.Linear(48 * 16, 4)).eval()


def test_peel_goes_through_the_code_to_the_image(convolutions):
    release, knowledge, images = told(convolutions, 1)
    found = attacks.create("peel", iterations=2, engine="eager")(release, knowledge, seed=0)
    assert found.certified.tolist() == [True]
    assert psnr(found.images, images) > 60


def test_spear_reads_features_in_front_of_the_code(convolutions):
    release, knowledge, images = told(convolutions, 4)
    for labels in (knowledge.labels, None):
        given = replace(knowledge, labels=labels)
        found = attacks.create("spear", iterations=900, engine="eager")(release, given, seed=0)
        assert sorted(found.labels.tolist()) == [0, 0, 2, 3]
        assert "`0` put out are exact" in found.note
        assert float(found.residual.max()) < 1e-3
        apart = (found.images[:, None] - images).square().flatten(2).mean(2)
        assert float(apart.min(1).values.max()) < 1e-2


def test_neither_goes_through_where_the_gradient_was_changed(convolutions):
    for name, batch in (("peel", 1), ("spear", 2)):
        release, knowledge, _ = told(convolutions, batch, defence="precode+prune")
        found = attacks.create(name, iterations=2, engine="eager")(release, knowledge, seed=0)
        assert found.certified.tolist() == [False] * batch

"""The loss gradient of the outputs, held while images are searched for."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import attacks
from attacks import held, inverting_gradients
from attacks.base import Task
from attacks.exact.last_layer import Samples
from attacks.held import Held, WithFeatures
from attacks.objectives import Cosine
from defenses import create
from dpbench.data import image_statistics
from dpbench.protocol import LocalTraining
from tests.helpers.attacks import know, noise_release, plain_release, psnr, smooth_images

ONE = torch.tensor([2])
SEVERAL = torch.tensor([3, 0, 4])


class Wide(nn.Module):
    """Six classes, so that the last layer can tell five samples apart; smooth, 8 px."""

    def __init__(self, behind=None):
        super().__init__()
        torch.manual_seed(3)
        self.conv, self.fc = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(512, 6)
        self.behind = behind or nn.Identity()

    def forward(self, x):
        return self.behind(self.fc(torch.sigmoid(self.conv((x - 0.5) / 0.25)).flatten(1)))


def told(release, model, labels, loss=F.cross_entropy):
    """What the search goes by, having been told the labels."""
    knowledge = replace(know(model, labels, (3, 8, 8), 6), loss=loss)
    task = Task(release, knowledge, torch.Generator(), torch.device("cpu"), lambda *_: None, 0.0)
    return held.held(task, labels)


def same(model, loss, images, labels, release):
    """Whether the gradient of `loss` at these images is the release."""
    gradients = torch.autograd.grad(loss(model(images), labels), list(model.parameters()))
    pairs = zip(gradients, release.gradients, strict=True)
    return all(float((g - sent).norm()) < 1e-3 * float(sent.norm()) for g, sent in pairs)


@pytest.mark.parametrize("defence", ["none", "clip"])
@pytest.mark.parametrize("order", [[0, 1, 2], [2, 0, 1]])
def test_at_the_images_its_gradient_is_the_release(defence, order):
    """Also of clipped samples, which the loss itself does not explain; in the order of the labels told."""
    model, images = Wide(), smooth_images(3)
    given = {"max_grad_norm": 0.8} if defence == "clip" else {}
    release = create(defence, **given).release(model, F.cross_entropy, images, SEVERAL, seed=0)
    found = told(release, model, SEVERAL[order])
    assert isinstance(found.loss, Held)
    assert same(model, found.loss, images[order], SEVERAL[order], release)
    assert not same(model, found.loss, images[order].flip(0), SEVERAL[order], release)
    assert same(model, F.cross_entropy, images, SEVERAL, release) == (defence == "none")


def test_of_one_image_whatever_the_loss():
    """The bias gradient is it."""
    model, images = Wide(), smooth_images(1)
    loss = lambda outputs, labels: (outputs - F.one_hot(labels, 6)).pow(4).sum(1).mean()  # noqa: E731
    names, gradients = zip(*model.named_parameters(), strict=True)
    sent = torch.autograd.grad(loss(model(images), ONE), gradients)
    release = replace(plain_release(model, images, ONE), names=names, gradients=sent)
    found = told(release, model, ONE, loss)
    assert torch.equal(found.loss.deltas, sent[names.index("fc.bias")][None])
    assert same(model, found.loss, images, ONE, release)


def test_what_comes_behind_the_last_layer_is_noticed():
    model, images = Wide(nn.LogSoftmax(1)), smooth_images(1)
    release = create("none").release(model, F.nll_loss, images, ONE, seed=0)
    assert told(release, model, ONE, F.nll_loss).loss is F.nll_loss


class Thrice(nn.Module):
    def forward(self, x):
        return 3 * x


def test_a_factor_behind_the_last_layer_changes_no_direction():
    model, images = Wide(Thrice()), smooth_images(1)
    release = plain_release(model, images, ONE)
    found = told(release, model, ONE)
    gradients = torch.autograd.grad(found.loss(model(images), ONE), list(model.parameters()))
    assert float(Cosine()(gradients, release.gradients)[0]) < 1e-5
    assert float(gradients[0].norm() / release.gradients[0].norm()) == pytest.approx(3, rel=1e-4)


EXACT = [("clip", {"max_grad_norm": 0.1}), ("soteria", {"soteria_ratio": 0.5})]
OTHERS = [
    ("noise", {"noise_std": 1e-4}),
    ("dp", {"max_grad_norm": 1.0, "noise_multiplier": 1e-3}),
    ("prune", {"prune_ratio": 0.5}),
    ("topk", {}),
    ("sign", {}),
    ("quantize", {"quantize_bits": 8}),
    ("percentile", {}),
    ("censor", {}),
    ("clip+prune", {"prune_ratio": 0.5}),
]


@pytest.mark.parametrize(("defence", "given"), EXACT + OTHERS)
@pytest.mark.parametrize("batch", [1, 3])
def test_a_changed_bias_gradient_is_not_held(defence, given, batch):
    """Of one image the defence says so, of several the last layer's gradient does. Answers to it go on."""
    model, images, labels = Wide(), smooth_images(batch), SEVERAL[:batch]
    chain = create(defence, **given)
    release = chain.release(model, F.cross_entropy, images, labels, seed=0)
    holds = (defence, given) in EXACT and (batch == 1 or defence == "clip")
    assert isinstance(told(release, model, labels).loss, Held) == holds
    for adaptive in (True, False):
        attack = attacks.create("inverting-gradients", iterations=2, adaptive=adaptive)
        found = attack(release, know(model, labels, (3, 8, 8), 6), seed=0)
        assert (held.UNTOLD in found.note) == ((defence, given) in EXACT and not holds)


@pytest.mark.parametrize("batch", [1, 3])
def test_neither_noise_nor_an_update_is_held(batch):
    """Noise in place of a gradient has no samples; the gradient of several steps has several weights."""
    model, images, labels = Wide(), smooth_images(batch), SEVERAL[:batch]
    release = plain_release(model, images, labels)
    assert isinstance(told(release, model, labels).loss, Held)
    assert not isinstance(told(noise_release(release), model, labels).loss, Held)
    update = replace(release, local=LocalTraining(epochs=2, batch_size=batch, lr=0.1))
    assert not isinstance(told(update, model, labels).loss, Held)
    one = replace(release, local=LocalTraining(epochs=1, batch_size=batch, lr=0.1))
    assert isinstance(told(one, model, labels).loss, Held)


def test_wrong_labels_are_not_held():
    model, images = Wide(), smooth_images(3)
    release = plain_release(model, images, SEVERAL)
    assert not isinstance(told(release, model, torch.tensor([3, 0, 5])).loss, Held)


def samples(certain):
    """Three samples, the third of which adds next to nothing; those `certain` are."""
    deltas = torch.tensor([[-1.0, 1, 0], [2, 0, -2], [0, -1e-5, 1e-5]], dtype=torch.float64)
    doubt = torch.tensor([0.0 if i in certain else 1.0 for i in range(3)])
    return Samples("fc", torch.zeros(3, 9), deltas, torch.tensor([0, 2, 1]), torch.ones(3), doubt)


def test_one_that_is_missing_is_what_the_others_leave():
    """Several are, where they leave next to nothing."""
    whole = samples((0, 1, 2)).deltas
    order, labels = [2, 0, 1], torch.tensor([1, 0, 2])
    for certain in [(0, 1, 2), (0, 1), (1, 2), (0, 2)]:
        torch.testing.assert_close(held.deltas(samples(certain), whole.sum(0), labels), whole[order])
    assert held.deltas(samples((0,)), whole.sum(0), labels) is None
    few = samples((0, 1)).deltas[:2].sum(0)
    found = held.deltas(samples((0, 1)), few, torch.tensor([0, 1, 1, 2]))
    torch.testing.assert_close(found, torch.stack([whole[0], 0 * few, 0 * few, whole[1]]))
    assert held.deltas(samples((0, 1)), few + 0.01, torch.tensor([0, 1, 1, 2])) is None


def test_features_are_compared_too():
    """As one more tensor: what the last layer's gradient is made of, each sample's at full length."""
    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
    deltas = draw(3, 6) * torch.tensor([[1.0], [0.1], [0.01]])
    features, others = draw(3, 20), draw(3, 20)
    trial, target = [draw(4), deltas.T @ features], [draw(4), deltas.T @ others]
    objective = WithFeatures(Cosine(), 1, deltas)
    expected, _ = Cosine()([*trial, features], [*target, others])
    at = [t.clone().requires_grad_() for t in trial]
    value, cotangent = objective(trial, target)
    assert float(value) == pytest.approx(float(expected), rel=1e-9)
    parts = objective.residuals(at, target)
    half = sum(p.square().sum() for p in parts) / 2
    assert float(half.detach()) == pytest.approx(float(expected), rel=1e-9)
    torch.testing.assert_close(tuple(cotangent), torch.autograd.grad(half, at))


def test_a_sample_of_next_to_no_gradient_has_no_features():
    """They would be rounding errors, of which TF32 makes more."""
    deltas = torch.diag(torch.tensor([1.0, 1e-2, 1e-5]))
    apart = WithFeatures(Cosine(), 0, deltas).apart
    torch.testing.assert_close(apart, torch.diag(torch.tensor([1.0, 1e2, 0.0])))
    before = torch.backends.cuda.matmul.allow_tf32
    try:
        torch.backends.cuda.matmul.allow_tf32 = True
        assert held.rounded(torch.device("cuda")) > 1e-2 > held.rounded(torch.device("cpu"))
        torch.backends.cuda.matmul.allow_tf32 = False
        assert held.rounded(torch.device("cuda")) == held.rounded(torch.device("cpu"))
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


def test_the_search_comes_nearer():
    """Of three images, told their labels, in as many iterations; of noise it is the same search."""
    model, images = Wide(), smooth_images(3)
    release = plain_release(model, images, SEVERAL)
    others = torch.rand(200, 3, 3, 3, generator=torch.Generator().manual_seed(7))
    others = F.interpolate(others, 8, mode="bilinear", align_corners=True)
    statistics = image_statistics.fit((255 * others).byte(), others.mean(0))
    knowledge = know(model, SEVERAL, (3, 8, 8), 6, image_statistics=statistics)

    def found(release):
        return attacks.create("inverting-gradients", iterations=60)(release, knowledge, seed=0).images

    own, noise = found(release), found(noise_release(release))
    with pytest.MonkeyPatch.context() as patch:
        plain = replace(inverting_gradients.PRESETS["tuned"], held=False)
        patch.setitem(inverting_gradients.PRESETS, "tuned", plain)
        assert psnr(own, images) > psnr(found(release), images) + 1
        assert torch.equal(noise, found(noise_release(release)))

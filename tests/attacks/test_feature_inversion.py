from dataclasses import replace

import pytest
import torch
from torch import nn

import attacks
import defenses
from attacks.annealed import LOWEST
from attacks.denoising import WITHOUT_DENOISER
from attacks.exact import last_layer
from attacks.feature_inversion import REST
from attacks.head_features import LEAST, Features, LayerGradient
from dpbench.data.image_statistics import fit
from dpbench.protocol import InputError, PublicImages, Stage
from dpbench.victim.head import trained_in_part
from tests.helpers.attacks import know, noise_release, plain_release, psnr, smooth_images

SHAPE, CLASSES = (3, 8, 8), 4


class Trunk(nn.Module):
    """A frozen trunk that takes nothing of an image away, ReLU in it or not, and a head."""

    def __init__(self, relu, width=600):
        super().__init__()
        torch.manual_seed(5)
        self.trunk, self.relu, self.fc = nn.Linear(192, width), relu, nn.Linear(width, CLASSES)

    def forward(self, images):
        features = self.trunk(images.flatten(1) - 0.5)
        return self.fc(features.relu() if self.relu else features)


def scene(labels, relu=True):
    """The victim, images and what the attacker knows."""
    labels = torch.tensor(labels)
    model = trained_in_part(Trunk(relu), CLASSES, "head")
    others = smooth_images(100)
    images, public = others[: len(labels)], others[20:]
    known = PublicImages(public, torch.arange(80) % CLASSES)
    statistics = fit((255 * public).round().byte(), public.mean(0))
    return images, know(model, labels, SHAPE, CLASSES, image_statistics=statistics, public_images=known)


def run(release, knowledge, **more):
    settings = {"iterations": 320, "restarts": 2} | more
    return attacks.create("feature-inversion", **settings)(release, knowledge, seed=0)


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("clipped", [False, True])
def test_features_that_decide_the_image_give_it_back(relu, clipped):
    """Clipping scales a gradient, and a scaled gradient tells the same features."""
    images, knowledge = scene([2], relu)
    release = plain_release(knowledge.model, images, knowledge.labels)
    if clipped:
        scaled = tuple(0.01 * g for g in release.gradients)
        release = replace(release, gradients=scaled, defense=(Stage("clip", {"max_grad_norm": 1.0}),))
    found = run(release, knowledge)
    assert psnr(found.images, images) > -20 * torch.tensor(3 * LOWEST).log10()
    assert found.gradient_distance < 0.1
    assert found.note == WITHOUT_DENOISER


def test_a_batch_comes_back_image_by_image_and_its_labels_are_read():
    images, knowledge = scene([2, 0])
    release = plain_release(knowledge.model, images, knowledge.labels)
    found = run(release, replace(knowledge, labels=None))
    assert (sorted(found.labels.tolist()), found.label_source) == ([0, 2], "inferred")
    order = [found.labels.tolist().index(label) for label in (2, 0)]
    for image, original in zip(found.images[order].split(1), images.split(1), strict=True):
        assert psnr(image, original) > 24


def test_pure_noise_has_no_features_and_is_left_to_the_search():
    images, knowledge = scene([2])
    release = noise_release(plain_release(knowledge.model, images, knowledge.labels))
    found = run(release, knowledge, iterations=60)
    assert found.note.startswith("Not solved but searched: ")
    assert psnr(found.images, images) < 20


def test_samples_that_are_not_found_are_left_to_the_search(monkeypatch):
    images, knowledge = scene([2, 0])
    release = plain_release(knowledge.model, images, knowledge.labels)

    def first(*given):
        every, why = whole(*given)
        parts = {name: getattr(every, name)[:1] for name in ("features", "deltas", "labels")}
        return replace(every, **parts, factors=every.factors[:1], residual=every.residual[:1]), why

    whole = last_layer.samples
    monkeypatch.setattr(last_layer, "samples", first)
    found = run(release, knowledge, iterations=160)
    assert found.images.shape == images.shape
    assert sorted(found.labels.tolist()) == [0, 2]
    assert found.note.startswith("The gradient of 1 sample is below")
    assert REST in found.note


def test_an_image_has_its_own_features_and_another_has_not():
    images, knowledge = scene([2, 0])
    with torch.no_grad():
        own = knowledge.model.trunk(images.flatten(1) - 0.5).relu()
        told = Features(knowledge, knowledge.labels[:1], "fc", own[:1])
        assert told.residuals(images[:1]).abs().max() < 1e-3
        away = (own[1] - own[0]).norm() / own[0].norm()
        assert told.residuals(images[1:]).norm() == pytest.approx(float(away) / LEAST, rel=1e-4)


def test_it_says_what_it_needs():
    images, knowledge = scene([2])
    release = plain_release(knowledge.model, images, knowledge.labels)
    none = replace(knowledge.public_images, labels=torch.zeros(80, dtype=torch.long))
    with pytest.raises(InputError, match="needs 2 public images of label 2, and there are 0"):
        run(release, replace(knowledge, public_images=none))


def noisy(knowledge, images, deviation):
    """The gradient of `images` with noise of that standard deviation on the mean."""
    release = plain_release(knowledge.model, images, knowledge.labels)
    torch.manual_seed(3)
    gradients = tuple(g + deviation * torch.randn_like(g) for g in release.gradients)
    return replace(release, gradients=gradients, defense=(Stage("noise", {"noise_std": deviation}),))


def norm(release):
    return float(torch.stack([g.norm() for g in release.gradients]).norm())


@pytest.mark.parametrize("labels", [[2], [2, 0]])
@pytest.mark.parametrize("relu", [False, True])
def test_under_little_noise_images_come_back_and_the_search_is_not_asked(labels, relu):
    images, knowledge = scene(labels, relu)
    exact = norm(plain_release(knowledge.model, images, knowledge.labels))
    found = run(noisy(knowledge, images, 1e-4 * exact), knowledge)
    assert found.note == f"Under noise features are fitted, not read. {WITHOUT_DENOISER}"
    assert found.engine == "none"
    for image, original in zip(found.images.split(1), images.split(1), strict=True):
        assert psnr(image, original) > 24


def test_more_noise_leaves_less_and_much_noise_the_labels_mean():
    images, knowledge = scene([2])
    exact = norm(plain_release(knowledge.model, images, knowledge.labels))
    least, some, much = (run(noisy(knowledge, images, s * exact), knowledge) for s in (1e-4, 0.02, 10))
    assert psnr(least.images, images) > psnr(some.images, images) + 3 > psnr(much.images, images) + 3
    assert psnr(much.images, much.start) > psnr(much.images, images)


def layer_gradient(knowledge, images, deviation):
    """What is told of the gradient of `images` under that noise on the sum."""
    release = noisy(knowledge, images, deviation / len(images))
    weight, bias = (len(images) * g for g in release.gradients)
    return LayerGradient(knowledge, knowledge.labels, "fc", torch.cat([weight, bias[:, None]], 1), deviation)


def test_the_attacked_images_leave_the_noise_unexplained_and_others_leave_more():
    """Of P entries, B (loss gradients) for each output are fitted; the others have a variance of 1."""
    images, knowledge = scene([2, 0])
    told = layer_gradient(knowledge, images, 0.01)
    left = told.residuals(images).detach()
    free = CLASSES * (601 - len(images))
    assert float(left.square().sum()) == pytest.approx(free, abs=4 * (2 * free) ** 0.5)
    assert float(told.residuals(images.flip(3)).square().sum()) > 1.5 * free
    assert told.error(images) == pytest.approx(0.01 * float(left.norm() / told.total.norm()))


@pytest.mark.parametrize("factors", [(1.0, 1.0), (0.2, 3.0)])
def test_neither_clip_factors_nor_the_loss_matter(factors):
    """Whatever multiplies the loss gradients, the images fit."""
    images, knowledge = scene([2, 0])
    parts = []
    for factor, image, label in zip(factors, images.split(1), knowledge.labels.split(1), strict=True):
        weight, bias = plain_release(knowledge.model, image, label).gradients
        parts.append(factor * torch.cat([weight, bias[:, None]], 1))
    told = LayerGradient(knowledge, knowledge.labels, "fc", sum(parts), 0.0)
    assert told.error(images) < 2e-3
    assert told.error(images.flip(3)) > 0.05


def test_two_images_of_the_same_features_are_no_division_by_zero():
    images, knowledge = scene([2, 2])
    same = images[:1].expand(2, -1, -1, -1)
    told = layer_gradient(knowledge, same, 1e-3)
    assert bool(told.residuals(same).isfinite().all())


def test_images_of_one_label_that_change_places_from_draw_to_draw_are_not_mixed(monkeypatch):
    images, knowledge = scene([2, 2])
    turn = []

    def swapping(*_, **__):
        turn.append(1)
        return images if len(turn) % 2 else images.flip(0)

    monkeypatch.setattr("attacks.feature_inversion.draw", swapping)
    found = run(noisy(knowledge, images, 0.01), knowledge, restarts=4)
    torch.testing.assert_close(found.images, images)


def test_behind_a_random_code_the_encoder_tells_the_features():
    """The last layer's own are codes; `spear` reads what lies before them off the encoder's gradient."""
    images, knowledge = scene([2])
    chain = defenses.create("precode", precode_width=16)
    changed, loss = chain.victim(knowledge.model, knowledge.loss)
    changed.trunk.requires_grad_(False)  # of which output_layer has to be asked: it returns a divergence, too
    release = chain.release(knowledge.model, knowledge.loss, images, knowledge.labels, seed=0)
    found = run(release, replace(knowledge, model=changed, loss=loss))
    assert found.note == WITHOUT_DENOISER
    assert psnr(found.images, images) > 24


class Alone(Trunk):
    """Runs its images one after the other."""

    def forward(self, images):
        return torch.cat([super(Alone, self).forward(each) for each in images.split(1)])


class Detached(Trunk):
    """No gradient goes from the head to its features; the trunk learns by a scale of the logits."""

    def forward(self, images):
        features = self.trunk(images.flatten(1) - 0.5)
        scale = features.mean(1, keepdim=True).sin()
        return self.fc(features.detach().relu()) + scale * self.fc.bias.detach()


class DetachedBelow(Trunk):
    """The same, though a layer that learns lies between."""

    def __init__(self, bias):
        super().__init__(bias)
        self.gain = torch.nn.Parameter(torch.ones(()))

    def forward(self, images):
        features = self.trunk(images.flatten(1) - 0.5)
        scale = features.mean(1, keepdim=True).sin()
        return self.fc(self.gain * features.detach().relu()) + scale * self.fc.bias.detach()


@pytest.mark.parametrize("noise", [(), (Stage("noise", {"noise_std": 1e-3}),)], ids=["exact", "noisy"])
@pytest.mark.parametrize("kind", [Alone, Detached, DetachedBelow])
def test_a_head_from_which_no_gradient_leads_to_an_image_is_left_to_the_search(kind, noise):
    images, knowledge = scene([2])
    knowledge = replace(knowledge, model=kind(True))
    release = replace(plain_release(knowledge.model, images, knowledge.labels), defense=noise)
    note = run(release, knowledge, iterations=2).note
    assert "`fc` takes no row of features of each image that a gradient leads back from" in note

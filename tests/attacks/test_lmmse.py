from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

import attacks
from attacks import linear_estimate, public_gradients
from dpbench.protocol import InputError, PublicImages, Release, Stage
from tests.helpers.attacks import know, smooth_images
from tests.helpers.linear_victim import (
    CLASSES,
    PIXELS,
    SHAPE,
    covariance,
    draw,
    gradients,
    mean,
    own_logit,
    released,
    told,
)


def attack(release, knowledge, **given):
    return attacks.create("lmmse", **given)(release, knowledge, seed=0)


def unclamped(release, knowledge):
    return linear_estimate.estimate(release, knowledge, 1200, torch.device("cpu")).images.double()


def dense(release, labels, public, noise, clip=None):
    """The estimate from covariances of pixels and gradients as they are, without inner products."""
    moments = []
    for label in labels.tolist():
        x = public.of(label, 1200).double()
        g = gradients(x, torch.full((len(x),), label))
        if clip is not None:
            g = g * (clip / g.norm(dim=1, keepdim=True)).clamp(max=1)
        x, expected = x.flatten(1), g.mean(0)
        moments.append(
            (
                x.mean(0),
                expected,
                (x - x.mean(0)).T @ (g - expected) / len(x),
                (g - expected).T @ (g - expected) / len(x),
            )
        )
    total = sum(m[3] for m in moments) + noise**2 * torch.eye(len(moments[0][1]), dtype=torch.float64)
    seen = torch.cat([g.flatten() for g in release.gradients]).double() * release.batch_size
    misfit = torch.linalg.solve(total, seen - sum(m[1] for m in moments))
    return torch.stack([m[0] + m[2] @ misfit for m in moments]).unflatten(1, SHAPE)


@pytest.mark.parametrize("clip", [None, 1.2])
@pytest.mark.parametrize("labels", [[1], [2, 0], [1, 0, 1]])
def test_the_estimate_is_that_of_the_covariances(labels, clip):
    labels, noise = torch.tensor(labels), 0.1
    knowledge, release = told(labels), released(draw(labels), labels, noise, clip=clip)
    torch.testing.assert_close(
        unclamped(release, knowledge),
        dense(release, labels, knowledge.public_images, noise, clip),
        atol=1e-5,
        rtol=0,
    )


def test_many_public_images_give_the_posterior_mean():
    """The gradient is the image itself, so the posterior is that of a Gaussian seen under noise."""
    label, noise = torch.tensor([1]), 0.1
    release = released(draw(label), label, noise)
    seen = release.gradients[0][1].double()
    gain = covariance(1) @ torch.linalg.inv(covariance(1) + noise**2 * torch.eye(PIXELS, dtype=torch.float64))
    truth = mean(1) + gain @ (seen - mean(1))
    few, many = (unclamped(release, told(label, n)).flatten() for n in (20, 4000))
    assert (many - truth).norm() < 0.1 * (truth - mean(1)).norm()
    assert (many - truth).norm() < (few - truth).norm() / 3


def test_pure_noise_gives_the_mean_image():
    """What it makes of noise is no better a guess than the mean image of the label, nor worse by .1 dB."""
    label = torch.tensor([2])
    knowledge, images = told(label, 400), draw(label.expand(60), seed=7)
    mean_image = knowledge.public_images.of(2, 400).mean(0)
    errors = []
    for seed in range(60):
        found = attack(released(draw(label, seed=9), label, 100.0, seed=seed), knowledge).images
        torch.testing.assert_close(found[0], mean_image, atol=5e-3, rtol=0)
        errors.append((found - images).square().mean())
    floor = (mean_image - images).square().mean()
    assert abs(10 * (torch.stack(errors).mean() / floor).log10()) < 0.1


def test_images_of_one_label_get_one_estimate():
    labels = torch.tensor([1, 1])
    found = attack(released(draw(labels), labels, 0.05), told(labels)).images
    assert torch.equal(found[0], found[1])


def test_several_releases_are_one_with_less_noise():
    label = torch.tensor([0])
    four = released(draw(label), label, 0.2, copies=4)
    one = Release(four.names, four.gradients, 1, (Stage("noise", {"noise_std": 0.1}),))
    assert torch.equal(attack(four, told(label)).images, attack(one, told(label)).images)


def test_without_noise_only_the_direction_counts():
    label = torch.tensor([0])
    release = released(draw(label), label)
    larger = Release(release.names, tuple(7 * g for g in release.gradients), 1)
    found = attack(release, told(label, 400)).images
    torch.testing.assert_close(found, attack(larger, told(label, 400)).images, atol=1e-5, rtol=0)
    assert (found - draw(label)).norm() < 0.5 * (
        told(label).public_images.of(0, 40).mean(0) - draw(label)
    ).norm()


@pytest.mark.parametrize("noise", [0.0, 0.1])
@pytest.mark.parametrize("stage", ["none", "prune"])
def test_a_release_of_zeros_gives_finite_images(noise, stage):
    label = torch.tensor([0])
    release = released(draw(label), label, noise)
    stages = release.defense + ((Stage("prune", {"prune_ratio": 0.9}),) if stage == "prune" else ())
    zeros = Release(release.names, tuple(0 * g for g in release.gradients), 1, stages)
    found = attack(zeros, told(label))
    assert found.images.isfinite().all()
    if stage == "prune":
        torch.testing.assert_close(found.images, found.start)


@pytest.mark.parametrize("name", ["clip", "dp", "dp-ftrl"])
def test_every_stage_that_clips_is_known(name):
    label = torch.tensor([1])
    plain = released(draw(label), label, 0.1, clip=0.5)
    values = {"max_grad_norm": 0.5, "noise_multiplier": 0.0, "bands": 1}
    noise = Stage("noise", {"noise_std": 0.1})
    known, blind = (
        Release(plain.names, plain.gradients, 1, stages)
        for stages in ((Stage(name, values), noise), (noise,))
    )
    torch.testing.assert_close(
        unclamped(known, told(label)),
        dense(known, label, told(label).public_images, 0.1, 0.5),
        atol=1e-5,
        rtol=0,
    )
    assert not torch.allclose(unclamped(known, told(label)), unclamped(blind, told(label)), atol=1e-3)


def test_an_unknown_label_is_weighed():
    labels = torch.tensor([1])
    sure = attack(released(draw(labels), labels, 0.05), told())
    assert (sure.labels.tolist(), sure.label_source) == ([1], "inferred")
    known = attack(released(draw(labels), labels, 0.05), told(labels))
    torch.testing.assert_close(sure.images, known.images, atol=1e-4, rtol=0)
    blind = attack(released(draw(labels), labels, 100.0), told()).images[0]
    means = torch.stack([told().public_images.of(label, 40).mean(0) for label in range(CLASSES)])
    torch.testing.assert_close(blind, means.mean(0), atol=1e-2, rtol=0)


def test_labels_are_compared_under_one_noise(monkeypatch):
    given = []

    def nothing(release, knowledge, label, *rest):
        return draw(label), draw(label), 1.0 + int(label), lambda variance: float(given.append(variance) or 0)

    monkeypatch.setattr(linear_estimate, "_given_labels", nothing)
    labels = torch.tensor([1])
    attack(released(draw(labels), labels, 0.01), told())
    assert given == [CLASSES] * CLASSES


@pytest.mark.parametrize("variance", [0.01, 0.3])
def test_the_evidence_is_the_likelihood_of_a_gaussian_gradient(variance):
    labels = torch.tensor([1])
    release, public = released(draw(labels), labels, 0.1), told().public_images
    seen = torch.cat([g.flatten() for g in release.gradients]).double()
    ours, truth = [], []
    for label in range(CLASSES):
        *_, evidence = linear_estimate._given_labels(
            release, told(), torch.tensor([label]), 40, torch.device("cpu")
        )
        ours.append(evidence(variance))
        x = public.of(label, 40).double()
        g = gradients(x, torch.full((len(x),), label))
        covariance = g.T.cov(correction=0) + variance * torch.eye(g.shape[1], dtype=torch.float64)
        truth.append(float(torch.distributions.MultivariateNormal(g.mean(0), covariance).log_prob(seen)))
    for i in range(1, CLASSES):
        assert ours[i] - ours[0] == pytest.approx(truth[i] - truth[0], rel=1e-3)


def test_few_of_many_classes_are_weighed(monkeypatch):
    monkeypatch.setattr(linear_estimate, "CLASSES", 2)
    asked = []

    def nothing(release, knowledge, label, *rest):
        asked.append(int(label))
        return draw(label), draw(label), 1.0, lambda variance: 0.0

    monkeypatch.setattr(linear_estimate, "_given_labels", nothing)
    labels = torch.tensor([1])
    images = -draw(labels)  # the loss is no cross-entropy: its gradient is negative where that one's is
    attack(released(images, labels, 0.01), told())
    assert len(asked) == 2
    assert asked[0] == 1


@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_pruned_entries_count_as_zeros_without_noise_and_not_at_all_under_it(noise):
    """The zeros of one exact gradient are the best guess of small entries; noise would have hidden them."""
    label = torch.tensor([1])
    sent = released(draw(label), label, noise)
    kept = [g.abs() >= g.abs().flatten().quantile(0.8) for g in sent.gradients]
    pruned = tuple(g * k for g, k in zip(sent.gradients, kept, strict=True))
    known = Release(sent.names, pruned, 1, (*sent.defense, Stage("prune", {"prune_ratio": 0.8})))
    blind = Release(sent.names, pruned, 1, sent.defense)
    same = torch.allclose(unclamped(known, told(label)), unclamped(blind, told(label)), atol=1e-6)
    assert same is (noise == 0)


def test_what_it_cannot_use_is_refused():
    label = torch.tensor([1])
    release = released(draw(label), label, 0.1)
    few = PublicImages(draw(torch.tensor([0, 1])), torch.tensor([0, 1]))
    for public, message in (
        (None, "lmmse needs public images like"),
        (
            PublicImages(torch.rand(4, 3, 5, 5), torch.ones(4).long()),
            r"lmmse needs public images of shape \(3, 2, 2\)",
        ),
        (few, "no 2 public images of label 1"),
    ):
        knowledge = told(label)
        object.__setattr__(knowledge, "public_images", public)
        with pytest.raises(InputError, match=message):
            attack(release, knowledge)
    object.__setattr__(knowledge, "labels", None)
    with pytest.raises(InputError, match="no 2 public images of any label"):
        attack(release, knowledge)


def own_gradients(model, images, labels, loss=F.cross_entropy):
    rows = [
        torch.autograd.grad(loss(model(x[None]), y[None]), list(model.parameters()))
        for x, y in zip(images, labels, strict=True)
    ]
    return torch.stack([torch.cat([g.flatten() for g in row]) for row in rows])


def moody(logits, labels):
    """A loss that functorch cannot see through."""
    return F.cross_entropy(logits, labels) * (2 if float(logits.detach().sum()) > 1e9 else 1)


@pytest.mark.parametrize("loss", [F.cross_entropy, moody])
def test_inner_products_are_those_of_the_gradients(tiny, monkeypatch, loss):
    images, labels = smooth_images(60), torch.arange(60) % 4
    knowledge, truth = know(tiny, None, (3, 8, 8), 4), own_gradients(tiny, images, labels)
    object.__setattr__(knowledge, "loss", loss)
    with pytest.warns(RuntimeWarning, match="vmap failed") if loss is moody else nullcontext():
        found = public_gradients.gradients(knowledge, images, labels)
    torch.testing.assert_close(found, truth, atol=1e-5, rtol=1e-4)
    mask = (torch.arange(truth.shape[1]) % 3 == 0).float()
    for entries in (2**27, 17 * truth.shape[1]):  # all at once, and in blocks of 17
        monkeypatch.setattr(public_gradients, "ENTRIES", entries)
        products, norms = public_gradients.inner_products(knowledge, images, labels, mask)
        torch.testing.assert_close(
            products, ((truth * mask) @ (truth * mask).T).double(), atol=1e-4, rtol=1e-4
        )
        torch.testing.assert_close(norms, truth.norm(dim=1).double(), atol=1e-4, rtol=1e-4)
    vector = torch.randn(truth.shape[1], generator=torch.Generator().manual_seed(0))
    found = public_gradients.products_with(knowledge, images, labels, vector)
    torch.testing.assert_close(found, (truth @ vector).double(), atol=1e-4, rtol=1e-4)


def test_the_factorisation_is_kept_for_the_next_release_of_the_same_victim_only(monkeypatch):
    public_gradients._kept.clear()
    asked = []
    compute = public_gradients.inner_products
    monkeypatch.setattr(
        public_gradients, "inner_products", lambda *given: (asked.append(1), compute(*given))[1]
    )
    label = torch.tensor([1])
    knowledge = told(label)
    for noise in (0.1, 0.5):
        attack(released(draw(label), label, noise), knowledge)
    assert len(asked) == 1
    with torch.no_grad():
        knowledge.model.fc.weight.add_(1)
    attack(released(draw(label), label, 0.1), knowledge)
    assert len(asked) == 2
    object.__setattr__(knowledge, "loss", lambda *given: 2 * own_logit(*given))
    attack(released(draw(label), label, 0.1), knowledge)
    assert len(asked) == 3
    for i in range(100):
        public_gradients.remembered(i, lambda: i)  # noqa: B023
    assert len(public_gradients._kept) == public_gradients.KEPT


def test_the_noise_of_one_dp_ftrl_release_is_that_of_dp():
    labels = torch.tensor([2, 0])
    knowledge, release = told(labels), released(draw(labels), labels, 0.1, clip=1.2)
    (stage,) = release.defense
    correlated = replace(release, defense=(Stage("dp-ftrl", {**stage.parameters, "bands": 16}),))
    assert torch.equal(unclamped(correlated, knowledge), unclamped(release, knowledge))

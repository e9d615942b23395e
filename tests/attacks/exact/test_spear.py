"""Tiny networks with known answers: features, labels, clip factors and images, or why there are none."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import attacks
from attacks.exact import first_layer, last_layer
from attacks.exact.descent import corrected, descend
from attacks.exact.last_layer import samples
from attacks.exact.layers import read
from attacks.exact.sparsity import sparse_rows
from attacks.exact.subspace import subspace
from dpbench.metrics import match
from dpbench.protocol import Release
from tests.helpers.attacks import know, noise_release, photograph, plain_release, psnr, smooth_images

SHAPE, CLASSES = (3, 8, 8), 10


class Scaled(nn.Module):
    """Images in [0, 1] to about -2 to 2."""

    def forward(self, x):
        return (x - 0.5) / 0.25


def mlp():
    torch.manual_seed(0)
    return nn.Sequential(Scaled(), nn.Flatten(), nn.Linear(192, 128), nn.ReLU(), nn.Linear(128, CLASSES))


def conv():
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 16, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(256, CLASSES)
    return nn.Sequential(Scaled(), *layers)


def batch(size):
    images = torch.rand(size, *SHAPE, generator=torch.Generator().manual_seed(size))
    return images, torch.arange(size).mul(3) % 7  # some labels twice


def clipped(model, images, labels, bound):
    """The mean of clipped gradients, and what each was clipped by."""
    single = [plain_release(model, x[None], y[None]).gradients for x, y in zip(images, labels, strict=True)]
    factors = [min(1.0, bound / float(sum(g.square().sum() for g in s).sqrt())) for s in single]
    mean = [
        sum(f * g for f, g in zip(factors, same, strict=True)) / len(images)
        for same in zip(*single, strict=True)
    ]
    names = tuple(name for name, _ in model.named_parameters())
    return Release(names, tuple(mean), len(images)), torch.tensor(factors).double()


def released(model, images, labels, bound):
    if bound is None:
        return plain_release(model, images, labels), torch.ones(len(images)).double()
    return clipped(model, images, labels, bound)


def pruned(release, share):
    """Without the smallest entries."""
    sizes = torch.cat([g.abs().flatten() for g in release.gradients])
    least = sizes.quantile(share)
    kept = tuple(torch.where(g.abs() < least, 0, g) for g in release.gradients)
    return Release(release.names, kept, release.batch_size)


@pytest.mark.parametrize("bound", [None, 0.5])
@pytest.mark.parametrize("size", [1, 4, 8])
def test_the_last_layer_gives_features_labels_and_clip_factors(size, bound):
    model, (images, labels) = conv(), batch(size)
    release, factors = released(model, images, labels, bound)
    found, why = samples(release, know(model, None, SHAPE, CLASSES), torch.Generator().manual_seed(0), 1024)
    assert why == ""
    features = model[:-1](images).detach().double()
    order = torch.cdist(features, found.features).argmin(1)
    assert torch.allclose(found.features[order], features, atol=1e-4)
    assert torch.equal(found.labels[order], labels)
    assert torch.allclose(found.factors[order], factors, atol=1e-4)
    if bound is not None:
        assert factors.max() < 1


@pytest.mark.parametrize("bound", [None, 0.5])
@pytest.mark.parametrize("size", [1, 2, 4, 12])
def test_a_first_layer_gives_the_images(size, bound):
    model, (images, labels) = mlp(), batch(size)
    release, _ = released(model, images, labels, bound)
    found = attacks.create("spear")(release, know(model, None, SHAPE, CLASSES), seed=0)
    order = torch.cdist(images.flatten(1), found.images.flatten(1)).argmin(1)
    errors = (found.images[order] - images).square().mean((1, 2, 3))
    assert errors.max() < 1e-6  # 60 dB
    assert torch.equal(found.labels[order], labels)
    assert found.label_source == "inferred"
    assert found.certified.all()
    assert found.residual.max() < 1e-4
    assert found.note == ""


def test_a_sample_without_a_gradient_is_not_found_and_the_others_are():
    model, (images, labels) = mlp(), batch(3)
    plain = plain_release(model, images, labels)
    # the mean over four, the fourth with a gradient of zero
    release = Release(plain.names, tuple(g * 3 / 4 for g in plain.gradients), 4)
    found = attacks.create("spear")(release, know(model, None, SHAPE, CLASSES), seed=0)
    assert found.certified.tolist() == [True, True, True, False]
    assert found.images.shape == (4, *SHAPE)
    assert found.note.startswith("The gradient of 1 sample is")


@pytest.mark.parametrize(
    ("make", "spoil"),
    [
        (mlp, noise_release),
        (mlp, lambda release: pruned(release, 0.5)),
        (conv, noise_release),
        (conv, lambda release: pruned(release, 0.5)),
    ],
)
def test_noise_and_pruning_are_said_and_the_search_takes_over(make, spoil):
    model, (images, labels) = make(), batch(3)
    release = spoil(plain_release(model, images, labels))
    knowledge = know(model, labels, SHAPE, CLASSES)
    found = attacks.create("spear", iterations=3)(release, knowledge, seed=0)
    searched = attacks.create("inverting-gradients", iterations=3)(release, knowledge, seed=0)
    assert "under noise or pruning" in found.note
    assert found.note.startswith("Not solved")
    assert found.note.endswith(searched.note)
    assert "total variation" in searched.note
    assert not found.certified.any()
    assert torch.equal(found.images, searched.images)


def test_photographs_that_are_not_solved_for_are_handed_back_unmixed(monkeypatch):
    torch.manual_seed(0)
    model = nn.Sequential(Scaled(), nn.Flatten(), nn.Linear(3072, 256), nn.ReLU(), nn.Linear(256, CLASSES))
    images, labels = photograph(0, 8)
    labels[1] = labels[0]
    release = plain_release(model, images, labels)
    monkeypatch.setattr(first_layer, "separated", lambda *_, **__: None)
    monkeypatch.setattr(first_layer, "MANY", 7)
    spear = attacks.create("spear", iterations=100)
    found = spear(release, know(model, labels, images.shape[1:], CLASSES), seed=0)
    assert found.note.startswith("Not solved: ReLU patterns")
    assert found.note.endswith("7 of 8 images were unmixed by the differences of their pixels.")
    assert not found.certified.any()
    assert found.iterations == 0
    order = match(found.images, images)
    assert psnr(found.images[order], images) > 20
    assert torch.equal(found.labels.sort().values, labels.sort().values)
    assert int((found.labels[order] == labels).sum()) >= 6
    search = attacks.create("inverting-gradients", iterations=50)
    searched = search(release, know(model, labels, images.shape[1:], CLASSES), seed=0).images
    searched = searched[match(searched, images)]
    assert psnr(found.images[order], images) > psnr(searched, images) + 3


def test_more_samples_than_the_last_layer_can_tell_apart():
    model, (images, labels) = conv(), batch(10)
    release = plain_release(model, images, labels)
    found = attacks.create("spear", iterations=2)(release, know(model, None, SHAPE, CLASSES), seed=0)
    assert "at most 9 samples of 10 classes" in found.note
    assert not found.certified.any()


def test_a_loss_that_is_no_cross_entropy_is_noticed():
    model, (images, labels) = conv(), batch(3)
    loss = F.cross_entropy(model(images), labels, label_smoothing=0.2)
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    release = Release(tuple(n for n, _ in model.named_parameters()), gradients, 3)
    found, why = samples(release, know(model, None, SHAPE, CLASSES), torch.Generator().manual_seed(0), 512)
    assert found is None
    assert why


@pytest.mark.parametrize("count", [12, 24])  # few, and more than are all polished
def test_sparse_rows_are_found_among_their_mixtures(count):
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(count, 25 * count, generator=generator).double()
    rows = rows * (torch.rand(rows.shape, generator=generator) < 0.5)
    mixed = torch.randn(count + 8, count, generator=generator).double() @ rows
    space = subspace(mixed, count)
    cosine = torch.zeros(count)
    for found in sparse_rows(space, generator, 4096):
        cosine = (F.normalize(found) @ F.normalize(rows).T).abs().amax(0)
        if (cosine > 1 - 1e-9).all():
            break
    assert (cosine > 1 - 1e-9).all()


def deep():
    torch.manual_seed(1)
    layers = nn.Conv2d(3, 24, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(24, 32, 3, padding=1), nn.ReLU()
    return nn.Sequential(Scaled(), *layers, nn.Flatten(), nn.Linear(512, CLASSES))


@pytest.mark.parametrize("bound", [None, 0.5])
def test_what_a_convolution_took_is_solved_for(bound):
    model, (images, labels) = deep(), batch(4)
    release, _ = released(model, images, labels, bound)
    knowledge = know(model, None, SHAPE, CLASSES)
    found, _ = samples(release, knowledge, torch.Generator().manual_seed(0), 1024)
    level = descend(read(model, SHAPE), found, dict(zip(release.names, release.gradients, strict=True)))
    features = model[:-1](images).detach().double()
    order = torch.cdist(features, found.features).argmin(1)
    assert level.index == 0
    z = model[:2](images).detach().double()
    active = z > 1e-4
    assert torch.allclose(level.outputs[order][active], z[active], atol=1e-4)
    assert not level.active[order][z < -1e-4].any()


def test_images_are_searched_for_from_there():
    model, images, labels = deep(), smooth_images(3), torch.tensor([2, 5, 5])
    release = plain_release(model, images, labels)
    found = attacks.create("spear", iterations=900)(release, know(model, None, SHAPE, CLASSES), seed=0)
    order = torch.cdist(images.flatten(1), found.images.flatten(1)).argmin(1)
    assert psnr(found.images[order], images) > 60
    assert torch.equal(found.labels[order], labels)
    assert "exact" in found.note
    assert found.residual.max() < 1e-3


def test_images_that_the_release_decides_are_certified():
    torch.manual_seed(1)
    wide = nn.Conv2d(3, 40, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(640, CLASSES)
    model, images, labels = nn.Sequential(Scaled(), *wide), smooth_images(3), torch.tensor([2, 5, 5])
    release = plain_release(model, images, labels)
    found = attacks.create("spear", iterations=1500)(release, know(model, None, SHAPE, CLASSES), seed=0)
    order = torch.cdist(images.flatten(1), found.images.flatten(1)).argmin(1)
    assert found.certified.all()
    assert psnr(found.images[order], images) > 80


def test_images_that_the_release_leaves_open_are_not_certified():
    """No filter sees every other column, so the images explain the release whatever is there."""
    torch.manual_seed(1)
    conv = nn.Conv2d(3, 16, (3, 1), stride=(1, 2), padding=(1, 0))
    model = nn.Sequential(Scaled(), conv, nn.ReLU(), nn.Flatten(), nn.Linear(16 * 32, CLASSES))
    images, labels = smooth_images(3), torch.tensor([2, 5, 5])
    release = plain_release(model, images, labels)
    found = attacks.create("spear", iterations=900)(release, know(model, None, SHAPE, CLASSES), seed=0)
    order = torch.cdist(images.flatten(1), found.images.flatten(1)).argmin(1)
    errors = (found.images[order] - images).abs()
    assert errors[..., ::2].max() < 1e-3
    assert errors[..., 1::2].max() > 0.1
    assert found.residual.max() < 1e-5
    assert not found.certified.any()
    assert "so may others" in found.note


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.Softplus()])
def test_labels_that_are_not_certain_are_not_called_exact(monkeypatch, activation):
    """The chain of the second network ends at its activation function."""
    torch.manual_seed(0)
    middle = nn.Conv2d(3, 16, 3, stride=2, padding=1), activation, nn.Threshold(0.7, 0.0), nn.Flatten()
    model = conv() if isinstance(activation, nn.ReLU) else nn.Sequential(*middle, nn.Linear(256, CLASSES))
    release = plain_release(model, *batch(3))
    find = last_layer.samples

    def doubtful(*given):
        found, why = find(*given)
        return replace(found, residual=torch.tensor([0.0, 0.5, 0.0])), why

    monkeypatch.setattr(last_layer, "samples", doubtful)
    found = attacks.create("spear", iterations=3)(release, know(model, None, SHAPE, CLASSES), seed=0)
    assert "2 of 3 labels are exact" in found.note


def test_layers_without_relu_are_said_where_the_whole_chain_is_read():
    torch.manual_seed(0)
    first = nn.Conv2d(3, 16, 3, stride=2, padding=1), nn.Tanh(), nn.Flatten()
    model = nn.Sequential(*first, nn.Linear(256, CLASSES))
    release = plain_release(model, *batch(2))
    found = attacks.create("spear", iterations=3)(release, know(model, None, SHAPE, CLASSES), seed=0)
    assert "labels are exact, but layers are no convolutions with ReLU." in found.note


def test_a_layer_that_overlooks_inputs_ends_the_descent():
    torch.manual_seed(4)  # of others the labels are exact on some processors only
    first = nn.Conv2d(3, 8, 3, padding=1), nn.ReLU()
    second = nn.Conv2d(8, 32, (3, 1), stride=(1, 2), padding=(1, 0)), nn.ReLU()
    model = nn.Sequential(Scaled(), *first, *second, nn.Flatten(), nn.Linear(32 * 32, CLASSES))
    release = plain_release(model, smooth_images(3), torch.tensor([2, 5, 5]))
    found = attacks.create("spear", iterations=30)(release, know(model, None, SHAPE, CLASSES), seed=0)
    assert "what `3` put out are exact; the images before it are searched for" in found.note
    assert not found.certified.any()


def test_a_unit_taken_for_off_is_switched_on_again_and_the_other_way_round():
    generator = torch.Generator().manual_seed(0)
    outputs, delta = (torch.randn(2, 3, 4, 4, generator=generator).double() for _ in range(2))
    outputs = outputs.clamp_min(0)
    outputs[0, 1, 2, 3], outputs[1, 2, 0, 0] = 1e-7, 0
    truth = outputs > 0
    bias = torch.where(truth, delta, 0).sum((0, 2, 3))
    mistaken = truth.clone()
    mistaken[0, 1, 2, 3], mistaken[1, 2, 0, 0] = False, True
    assert torch.equal(corrected(mistaken, outputs, delta, bias), truth)
    assert torch.equal(corrected(truth, outputs, delta, bias), truth)

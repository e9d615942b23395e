"""Every attack against a case where the answer is known and one where it must fail."""

import pytest
import torch
from torch import nn

import attacks
from attacks.base import to_images
from dpbench.data import load_data
from dpbench.metrics.floors import mean_image
from dpbench.protocol import InputError, Release, Stage
from tests.helpers.attacks import know, noise_release, photograph, plain_release, psnr

ALL = ["dlg", "idlg", "inverting-gradients"]
SHORT = {
    "dlg": {"iterations": 150, "restarts": 2},
    "idlg": {"iterations": 150, "restarts": 2},
    "inverting-gradients": {"iterations": 300, "tv": 0.0},
}


def test_the_table_is_complete():
    others = {"analytic", "prior-aware", "gradinversion", "deepinversion", "learned-inversion"}
    others |= {"feature-inversion"}
    others |= {"latent-projection", "label-restoration", "lmmse", "map", "peel", "posterior-mean", "spear"}
    ours = {name for name in attacks.names() if attacks.kind(name).__module__.startswith("attacks.")}
    assert ours == {*ALL, *others}  # these have tests of their own
    with pytest.raises(InputError, match=r"known: .*dlg"):
        attacks.create("nonsense")
    with pytest.raises(TypeError):
        attacks.create("dlg", tv=0.1)
    with pytest.raises(InputError, match="`iterations` must be at least 1"):
        attacks.create("dlg", iterations=0)


@pytest.mark.parametrize("name", ALL)
def test_a_tiny_smooth_net_is_inverted(name, tiny):
    images, labels = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([2])
    seen = []
    knowledge = know(tiny, shape=(3, 8, 8), classes=4)
    found = attacks.create(name, **SHORT[name])(
        plain_release(tiny, images, labels), knowledge, seed=1, progress=lambda *call: seen.append(call)
    )
    assert psnr(found.images, images) > 20
    assert found.labels.tolist() == [2]
    assert found.label_source == ("joint" if name == "dlg" else "inferred")
    assert found.images.min() >= 0
    assert found.images.max() <= 1
    assert found.start.shape == images.shape
    assert found.gradient_distance < 0.05
    assert seen


@pytest.mark.parametrize("name", ALL)
def test_noise_is_not_inverted(name, tiny):
    images, labels = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([2])
    knowledge = know(tiny, shape=(3, 8, 8), classes=4)
    release = noise_release(plain_release(tiny, images, labels))
    found = attacks.create(name, **SHORT[name])(release, knowledge, seed=1)
    assert psnr(found.images, images) <= psnr(torch.full_like(images, 0.5), images) + 1


@pytest.mark.parametrize("name", ALL)
def test_same_seed_same_images(name, tiny):
    images, labels = torch.rand(2, 3, 8, 8), torch.tensor([2, 0])
    release, knowledge = plain_release(tiny, images, labels), know(tiny, labels, (3, 8, 8), 4)
    attack = attacks.create(name, iterations=20, restarts=1)
    first, second, other = (attack(release, knowledge, seed=s).images for s in (4, 4, 5))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("name", ALL)
def test_only_the_support_of_a_pruned_release_is_matched(name, tiny):
    """The known answer under pruning: matching the support gets closer than matching the zeros."""
    images, labels = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([2])
    plain = plain_release(tiny, images, labels)
    pruned = tuple(g * (g.abs() >= g.abs().flatten().quantile(0.7)) for g in plain.gradients)
    release = Release(plain.names, pruned, 1, (Stage("prune", {"prune_ratio": 0.7}),))
    knowledge = know(tiny, labels, (3, 8, 8), 4)
    adaptive, naive = (
        psnr(attacks.create(name, **SHORT[name], adaptive=a)(release, knowledge, seed=1).images, images)
        for a in (True, False)
    )
    assert adaptive > naive


def test_a_clipped_release_is_matched_up_to_its_scale(tiny):
    """iDLG, whose labels are hard: DLG's soft labels can shrink a gradient, and need no adaptation."""
    images, labels = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([2])
    plain = plain_release(tiny, images, labels)
    bound = 0.1 * float(torch.cat([g.flatten() for g in plain.gradients]).norm())
    clipped = tuple(0.1 * g for g in plain.gradients)
    release = Release(plain.names, clipped, 1, (Stage("clip", {"max_grad_norm": bound}),))
    knowledge = know(tiny, labels, (3, 8, 8), 4)
    adaptive, naive = (
        psnr(attacks.create("idlg", iterations=400, adaptive=a)(release, knowledge, seed=1).images, images)
        for a in (True, False)
    )
    assert adaptive > naive + 3
    assert adaptive > 20


def test_the_best_restart_is_kept(tiny, monkeypatch):
    images, labels = torch.rand(1, 3, 8, 8), torch.tensor([2])
    release, knowledge = plain_release(tiny, images, labels), know(tiny, labels, (3, 8, 8), 4)
    distances, starts = iter([3.0, 1.0, 2.0]), []

    def search(gradient, start, *rest):
        starts.append(start[0])
        return next(distances), start, 15

    monkeypatch.setattr("attacks.dlg.lbfgs", search)
    found = attacks.create("idlg", iterations=15, restarts=3)(release, knowledge, seed=7)
    assert (found.gradient_distance, found.iterations) == (1.0, 45)
    torch.testing.assert_close(found.images, to_images(starts[1], knowledge))
    assert not torch.equal(starts[0], starts[1])


class Permuted(nn.Module):
    """Channels last, as in Swin: the gradient of its image is not contiguous."""

    def __init__(self):
        super().__init__()
        self.first, self.fc = nn.Linear(3, 4), nn.Linear(256, 4)

    def forward(self, x):
        return self.fc(torch.sigmoid(self.first(x.permute(0, 2, 3, 1))).flatten(1))


@pytest.mark.parametrize("name", ALL)
def test_a_gradient_that_is_not_contiguous_is_served(name):
    model, images, labels = Permuted(), torch.rand(2, 3, 8, 8), torch.tensor([2, 0])
    found = attacks.create(name, iterations=3, restarts=1)(
        plain_release(model, images, labels), know(model, labels, (3, 8, 8), 4), seed=0
    )
    assert not torch.equal(found.images, found.start)


def test_bad_releases_are_refused(tiny, lenet):
    release = plain_release(tiny, torch.rand(1, 3, 8, 8), torch.tensor([2]))
    attack = attacks.create("dlg")
    with pytest.raises(InputError, match="do not fit"):
        attack(release, know(lenet), seed=0)
    broken = Release(release.names, tuple(g * torch.nan for g in release.gradients), 1)
    with pytest.raises(InputError, match="NaN"):
        attack(broken, know(tiny, shape=(3, 8, 8), classes=4), seed=0)


def test_a_line_of_the_log_rebuilds_the_attack():
    from attacks.inverting_gradients import InvertingGradients

    attack = attacks.create("inverting-gradients", tv=0.5)
    assert repr(eval(repr(attack), {"InvertingGradients": InvertingGradients})) == repr(attack)


def floor(images):
    return psnr(mean_image(1, load_data("samples").mean_image), images)


@pytest.mark.parametrize("count", [1, pytest.param(8, marks=pytest.mark.slow)])
def test_dlg_inverts_its_lenet(count, lenet):
    """At least 7 of 8 above 30 dB, restarts chosen by the distance alone; in CI the first."""
    found = []
    for seed in range(count):
        images, labels = photograph(seed)
        result = attacks.create("dlg")(plain_release(lenet, images, labels), know(lenet), seed=seed)
        found.append((psnr(result.images, images), result.labels.tolist() == labels.tolist()))
    print("DLG on LeNet, dB and label right:", found)
    assert sum(p > 30 for p, _ in found) >= count - (count == 8)


def test_dlg_finds_nothing_in_noise(lenet):
    images, labels = photograph(0)
    release = noise_release(plain_release(lenet, images, labels))
    result = attacks.create("dlg", iterations=300)(release, know(lenet), seed=0)
    assert psnr(result.images, images) <= floor(images) + 1


@pytest.mark.parametrize(("count", "iterations"), [(3, 500), pytest.param(8, 1500, marks=pytest.mark.slow)])
def test_inverting_gradients_inverts_the_untrained_convnet(count, iterations, convnet):
    attack, found = attacks.create("inverting-gradients", iterations=iterations), []
    for seed in range(count):
        images, labels = photograph(seed)
        found.append(
            psnr(attack(plain_release(convnet, images, labels), know(convnet), seed=seed).images, images)
        )
    print("Inverting Gradients on the untrained ConvNet, dB:", found)
    assert sum(found) / count > 25


def test_inverting_gradients_finds_nothing_in_noise(convnet):
    images, labels = photograph(0)
    release = noise_release(plain_release(convnet, images, labels))
    result = attacks.create("inverting-gradients", iterations=500)(release, know(convnet, labels), seed=0)
    assert psnr(result.images, images) <= floor(images) + 1

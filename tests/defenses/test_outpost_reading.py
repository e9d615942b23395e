"""What a release under `outpost` says of the gradient, and what attacks make of it."""

import pytest
import torch
from torch.nn import functional as F

import attacks
import defenses
from attacks.prior_aware import scores
from attacks.reading import as_it_was, reading_of
from dpbench.data import load_data
from dpbench.protocol import combined
from dpbench.victim import load
from tests.helpers.attacks import know, photograph, psnr


@pytest.fixture(scope="module")
def early():
    return load("convnet", "none", "early", None, load_data("samples"), 32).model


def released(model, seed=0, count=1, batch=1, **given):
    images, labels = photograph(2, batch)
    chain = defenses.create("outpost", **given)
    found = combined(chain.releases(model, F.cross_entropy, images, labels, seed=seed, count=count))
    (plain,) = defenses.Chain().releases(model, F.cross_entropy, images, labels, seed=0, count=1)
    return found, plain.gradients, images, labels


@pytest.mark.parametrize("noise", [0.0, 0.8])
def test_what_is_read_as_kept_was_kept_and_the_rest_is_within_its_bounds(early, noise):
    release, gradients, _, _ = released(early, outpost_noise=noise)
    seen = reading_of(release)
    parts = zip(seen.shares, seen.bounds, seen.values, gradients, seen.variances, strict=True)
    for share, bound, value, g, variance in parts:
        kept = share > 0
        assert int(kept.sum()) == min(round(0.2 * g.numel()), int((g != 0).sum()))
        error = 5 * float(variance.max()) ** 0.5 + 1e-9
        if noise == 0:
            assert torch.equal(value[kept], g[kept])
            assert bool((g[~kept].abs() <= bound).all())
        else:
            assert float(((g[~kept].abs() <= bound + error).float()).mean()) > 0.95


def test_the_noise_is_read_from_what_was_pruned(early):
    release, *_ = released(early, outpost_noise=0.8)
    pairs = [(w.detach(), v) for w, v in zip(early.parameters(), reading_of(release).variances, strict=True)]
    large = [(0.8 * float(w.var(correction=0)), float(v.max())) for w, v in pairs if w.numel() > 1000]
    shown = [variance / level**2 for level, variance in large if variance > 0]
    assert shown
    assert all(0.2 < ratio < 1.5 for ratio in shown)  # draws beyond the smallest entry kept are cut off


def test_a_release_that_chance_left_alone_is_told_from_the_others(early):
    kinds = set()
    for seed in range(12):
        release, gradients, _, _ = released(early, seed=seed, outpost_round=8)
        acted = not all(torch.equal(a, b) for a, b in zip(release.gradients, gradients, strict=True))
        kinds.add(acted)
        assert (as_it_was(release) is release) == acted
        assert all(bool((s == 1).all()) for s in reading_of(release).shares) != acted
    assert kinds == {True, False}


def test_one_plain_release_among_several_is_enough_for_peel_and_spear(early):
    for name, batch in (("peel", 1), ("spear", 3)):
        release, _, images, labels = released(early, count=6, batch=batch, outpost_round=8)
        attack = attacks.create(name, iterations=300, engine="eager")
        found = attack(release, know(early, labels), seed=0)
        assert "exact" not in found.note or "are exact" in found.note
        apart = (found.images[:, None] - images).square().flatten(2).mean(2).min(1).values
        assert float(apart.max()) < 1e-2
        release, _, images, labels = released(early, count=2, batch=batch)
        found = attacks.create(name, iterations=2, engine="eager")(release, know(early, labels), seed=0)
        assert not found.certified.any()
        assert "took over" in found.note or "Not solved" in found.note


@pytest.mark.parametrize("batch", [1, 4])
def test_who_knows_all_samples_but_one_picks_the_true_candidate(early, batch):
    """What docs/threat-models.md says of the informed attacker, here with six candidates."""
    images, labels = photograph(2, batch)
    others, their_labels = photograph(9, 5)
    alone = [
        torch.cat([g.flatten() for g in torch.autograd.grad(F.cross_entropy(early(x[None]), y[None]), w)])
        for w in [[*early.parameters()]]
        for x, y in zip(torch.cat([images, others]), torch.cat([labels, their_labels]), strict=True)
    ]
    known = torch.stack(alone[1:batch]).sum(0) if batch > 1 else torch.zeros_like(alone[0])
    candidates = torch.stack([alone[0], *alone[batch:]]).double()
    for seed in range(3):
        release, *_ = released(early, seed=seed, batch=batch)
        found = scores(release, known.double(), candidates)
        assert int(found.argmax()) == 0
        assert float(found[0]) > 0


def test_a_search_that_knows_gains(early):
    """With the prior, of two photographs on average."""
    gain, statistics = 0.0, load_data("samples").statistics
    for seed in range(2):
        release, _, images, labels = released(early, seed=seed)
        knowledge = know(early, labels, image_statistics=statistics)
        told, blind = (
            attacks.create("inverting-gradients", iterations=200, adaptive=on)(release, knowledge, seed=seed)
            for on in (True, False)
        )
        gain += psnr(told.images, images) - psnr(blind.images, images)
    assert gain / 2 > 2

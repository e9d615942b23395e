from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import binomtest

from dpbench import metrics
from dpbench.assets import AssetUnavailable
from dpbench.metrics import identification, perceptual
from dpbench.protocol import InputError

GREY = torch.full((3, 16, 16), 0.5)
TRIALS = 500
SMALLEST_P = 1e-4
"""Of a test of the right chance: ten of these tests see one false alarm in a thousand runs."""


def images(count, seed=0, size=16):
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def photographs(count, generator):
    """Like unrelated photographs: large patches, few of them, of all contrasts."""
    coarse = torch.rand(count, 3, 3, 3, generator=generator) - 0.5
    contrast = 0.2 + 0.8 * torch.rand(count, 1, 1, 1, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse * contrast, size=16, mode="bilinear")
    return (0.5 + smooth).clamp(0, 1)


def unrelated(batch, decoys):
    """Attacks' images, originals and decoys, all drawn independently of each other."""
    generator = torch.Generator().manual_seed(batch)
    for _ in range(TRIALS):
        yield photographs(2 * batch + decoys, generator).split([batch, batch, decoys])


def after_the_match(outputs, originals, others):
    """The rule of version 0.1 for the first original, from its text: the assignment, then the gallery."""
    order = metrics.match(outputs, originals, "mse")
    own, *false = torch.cat([originals[:1], others]) - 0.5
    guess = outputs[order[0]] - 0.5
    cosines = [torch.cosine_similarity(guess.flatten(), x.flatten(), 0) for x in (own, *false)]
    return bool(cosines[0] > max(cosines[1:]))


@pytest.mark.parametrize("batch", [1, 4, 8])
def test_unrelated_images_identify_at_chance_whatever_the_batch_size(batch):
    found = sum(bool(metrics.identified(*drawn, GREY)[0]) for drawn in unrelated(batch, 12))
    assert binomtest(found, TRIALS, 1 / 13).pvalue > SMALLEST_P


def test_an_assignment_that_knows_the_originals_would_not_be_at_chance():
    found = sum(after_the_match(*drawn) for drawn in unrelated(8, 12))
    assert binomtest(found, TRIALS, 1 / 13).pvalue < SMALLEST_P / 1e6


@pytest.mark.parametrize("batch", [1, 8])
def test_unrelated_images_have_iip_at_chance(random_trunks, batch):
    generator, found, trials = torch.Generator().manual_seed(0), 0, 200
    for _ in range(trials):
        drawn = torch.nn.functional.interpolate(photographs(2 * batch + 4, generator), size=32)
        found += bool(metrics.iip(*drawn.split([batch, batch, 4]))[0])
    assert binomtest(found, trials, 1 / 5).pvalue > SMALLEST_P


@pytest.mark.parametrize("batch", [1, 8])
def test_reconstructions_are_identified_in_any_order(batch):
    generator = torch.Generator().manual_seed(0)
    found = []
    for _ in range(20):
        _, originals, others = photographs(2 * batch + 99, generator).split([batch, batch, 99])
        noisy = originals + 0.1 * torch.randn(originals.shape, generator=generator)
        found.append(metrics.identified(noisy.roll(1, 0), originals, others, GREY))
    assert torch.cat(found).float().mean() > 0.9


def test_a_faint_trace_identifies_and_another_image_does_not():
    originals, others = images(5), images(50, 1)
    trace = (GREY + 0.02 * (originals - GREY) + 0.01 * (images(5, 2) - GREY)).clamp(0, 1)
    assert metrics.identified(trace, originals, others, GREY).all()
    assert not metrics.identified(others[:5], originals, others, GREY).any()


def test_one_leaked_image_does_not_identify_its_batch_mates():
    originals, others = images(4), images(50, 1)
    leaked = originals[[2, 2, 2, 2]]
    found = metrics.identified(leaked, originals, others, GREY)
    assert found[2]
    assert found.sum() <= 2  # the rest is a guess at 1 in 51


def test_the_mean_image_and_a_negative_identify_nothing():
    originals, others = images(3), images(2, 1)
    assert not metrics.identified(GREY.expand(3, 3, 16, 16), originals, others, GREY).any()
    for original in originals.split(1):
        assert not metrics.identified(1 - original, original, others, GREY).any()


def test_only_an_originals_own_decoys_count():
    originals, others = images(2), images(3, 1)
    guess = torch.cat([others[:1], others[:1] + 0.1 * (originals[:1] - 0.5)])
    chosen = torch.tensor([[False, True, True], [True, True, True]])
    assert metrics.identified(guess, originals, others, GREY).tolist() == [False, False]
    assert metrics.identified(guess, originals, others, GREY, chosen).tolist() == [True, False]


def test_nothing_but_finite_images_of_one_size_is_judged():
    originals, others = images(2), images(3, 1)
    with pytest.raises(InputError, match="NaN"):
        metrics.identified(originals * math.nan, originals, others, GREY)
    with pytest.raises(InputError, match="size of the reconstructions"):
        metrics.identified(originals, originals, images(3, size=8), GREY)
    loud = 99 * (originals - 0.5)
    assert metrics.identified(loud, originals, others, GREY).equal(
        metrics.identified(loud.clamp(0, 1), originals, others, GREY)
    )


def test_chunks_of_a_large_gallery_keep_their_order(monkeypatch):
    originals, others = images(3), images(20, 1)
    whole = metrics.identified(others[[0, 19, 7]], torch.cat([others[7:8], originals]), others[8:], GREY)
    monkeypatch.setattr(identification, "CHUNK", 3)
    parts = metrics.identified(others[[0, 19, 7]], torch.cat([others[7:8], originals]), others[8:], GREY)
    assert whole.equal(parts)


def by_hand(images, originals, others, module):
    """IIP in numpy over the package's own trunk: cosines of the last map's mean, the best of all images."""

    def features(batch):
        with torch.no_grad():
            last = module.net(module.scaling_layer(2 * batch - 1))[-1].numpy()
        rows = last.reshape(*last.shape[:2], -1).mean(2)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    guesses = features(images)
    return (features(originals) @ guesses.T).max(1) > (features(others) @ guesses.T).max()


@pytest.mark.parametrize("size", [32, 48])
def test_iip_is_numpys(random_trunks, size):
    originals, others = images(6, size=size), images(30, 1, size)
    traces = (originals + torch.linspace(0, 0.6, 6)[:, None, None, None] * images(6, 2, size)) / 1.6
    expected = by_hand(traces, originals, others, random_trunks["alex"])
    assert metrics.iip(traces, originals, others).tolist() == expected.tolist()
    singly = torch.cat([metrics.iip(traces[i : i + 1], originals[i : i + 1], others) for i in range(6)])
    assert 0 < singly.sum() < 6


def test_iip_of_the_originals_is_full_and_ties_identify_nothing(random_trunks):
    gallery = images(9, size=32)
    assert metrics.iip(gallery[:4], gallery[:4], gallery[4:]).all()
    assert not metrics.iip(gallery[4:8], gallery[:4], gallery[4:]).any()
    flat = torch.zeros(2, 3, 32, 32)
    flat[1, 0, 0, 0] = 1e-9  # another image, with the same features
    assert not metrics.iip(flat[:1], flat[:1], flat[1:]).any()


def test_iip_knows_a_gallery_again_and_forgets_the_oldest(random_trunks, monkeypatch):
    seen = []

    def pooled(images, net):
        seen.append(len(images))
        return perceptual.pooled(images, net)

    monkeypatch.setattr(identification, "pooled", pooled)
    monkeypatch.setattr(identification, "_features", {})
    originals, others = images(2, size=32), images(3, 1, 32)
    for _ in range(3):
        metrics.iip(originals, originals, others)
    assert sorted(seen) == [2, 2, 2, 5]
    changed = others.clone()
    changed[2, 0, 0, 0] = 0.5
    metrics.iip(originals, originals, changed)
    assert sorted(seen[4:]) == [2, 5]
    for seed in range(20):
        metrics.iip(originals, originals, images(1, seed, 32))
    assert len(identification._features) == identification.KEPT


def test_iip_without_a_trunk_says_so(no_trunks):
    with pytest.raises(AssetUnavailable):
        metrics.iip(*(images(1, seed, 32) for seed in range(3)))

from __future__ import annotations

import numpy as np
import pytest
import torch

from dpbench import metrics
from dpbench.assets import AssetUnavailable
from dpbench.metrics import identification, perceptual
from dpbench.protocol import InputError

GREY = torch.full((3, 16, 16), 0.5)


def images(count, seed=0):
    return torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(seed))


def noise(count, seed=0, size=32):
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def test_noise_identifies_at_chance():
    originals, others = images(400), images(4, 1)
    share = metrics.identified(images(400, 2), originals, others, GREY).float().mean()
    assert abs(float(share) - 0.2) < 3 * (0.2 * 0.8 / 400) ** 0.5


def test_a_faint_trace_identifies_and_another_image_does_not():
    originals, others = images(5), images(50, 1)
    trace = (GREY + 0.02 * (originals - GREY) + 0.01 * (images(5, 2) - GREY)).clamp(0, 1)
    assert metrics.identified(trace, originals, others, GREY).all()
    assert not metrics.identified(others[:5], originals, others, GREY).any()


def test_the_mean_image_and_a_negative_identify_nothing():
    originals, others = images(3), images(2, 1)
    assert not metrics.identified(GREY.expand(3, 3, 16, 16), originals, others, GREY).any()
    assert not metrics.identified(1 - originals, originals, others, GREY).any()


def by_hand(images, gallery, own, module):
    """IIP in numpy, over the package's own trunk: nearest by cosine of the mean over the last map."""

    def features(batch):
        with torch.no_grad():
            last = module.net(module.scaling_layer(2 * batch - 1))[-1].numpy()
        return last.reshape(*last.shape[:2], -1).mean(2)

    a, b = features(images), features(gallery)
    cosine = (a @ b.T) / np.outer(np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1))
    return cosine.argmax(1) == own


@pytest.mark.parametrize("size", [32, 48])
def test_iip_is_numpys(random_trunks, size):
    gallery = noise(30, size=size)
    own = np.array([3, 29, 0, 11, 17, 8])
    originals = gallery[own]
    traces = (originals + torch.linspace(0, 0.6, 6)[:, None, None, None] * noise(6, 1, size)) / 1.6
    found = metrics.iip(traces, originals, gallery)
    assert found.tolist() == by_hand(traces, gallery, own, random_trunks["alex"]).tolist()
    assert 0 < found.sum() < 6
    assert found.dtype == torch.bool


def test_iip_of_the_originals_is_full_and_of_noise_at_chance(random_trunks):
    gallery = noise(300)
    originals = gallery[:100]
    assert metrics.iip(originals, originals, gallery).all()
    assert not metrics.iip(originals.roll(1, 0), originals, gallery).any()
    # The nearest of noise is nobody's doing, so over all originals one in G is right.
    small = gallery[:5]
    share = [metrics.iip(noise(5, seed), small, small).float().mean() for seed in range(1, 61)]
    assert abs(float(torch.stack(share).mean()) - 0.2) < 4 * (0.2 * 0.8 / 300) ** 0.5


def test_iip_copies_of_the_original_count_as_it_and_ties_do_not(random_trunks):
    gallery = noise(6)
    assert metrics.iip(gallery[:2], gallery[:2], torch.cat([gallery, gallery])).all()
    flat = torch.zeros(2, 3, 32, 32)
    flat[1, 0, 0, 0] = 1e-9  # another image, with the same features
    assert not metrics.iip(flat[:1], flat[:1], flat).any()


def test_iip_refuses_a_gallery_without_the_originals(random_trunks):
    gallery = noise(6)
    with pytest.raises(InputError, match="lacks 1 of the 2 originals"):
        metrics.iip(gallery[:2], gallery[:2], gallery[1:])
    with pytest.raises(InputError, match="size of the reconstructions"):
        metrics.iip(gallery[:2], gallery[:2], noise(6, size=40))


def test_iip_knows_a_gallery_again_and_forgets_the_oldest(random_trunks, monkeypatch):
    seen = []

    def pooled(images, net):
        seen.append(len(images))
        return perceptual.pooled(images, net)

    monkeypatch.setattr(identification, "pooled", pooled)
    monkeypatch.setattr(identification, "_galleries", {})
    gallery = noise(5)
    for _ in range(3):
        metrics.iip(gallery[:2], gallery[:2], gallery)
    assert seen == [2, 5, 2, 2]
    changed = gallery.clone()
    changed[4, 0, 0, 0] = 0.5
    metrics.iip(gallery[:2], gallery[:2], changed)
    assert seen[4:] == [2, 5]
    for seed in range(20):
        metrics.iip(gallery[:1], gallery[:1], torch.cat([gallery[:1], noise(1, seed + 2)]))
    assert len(identification._galleries) == identification.KEPT


def test_iip_without_a_trunk_says_so(no_trunks):
    with pytest.raises(AssetUnavailable):
        metrics.iip(noise(1), noise(1), noise(1))

from __future__ import annotations

import torch

from dpbench import metrics

GREY = torch.full((3, 16, 16), 0.5)


def images(count, seed=0):
    return torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(seed))


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

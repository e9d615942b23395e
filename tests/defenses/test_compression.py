"""Top-k with its memory, QSGD as a distribution, the sign, and NVFlare's percentile."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import defenses
from defenses.percentile import Percentile
from defenses.quantisation import Quantize, Sign
from defenses.topk import TopK
from dpbench.protocol import combined

torch.set_num_threads(1)


def draw(seed, *shapes):
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes)


def fresh(seed=0):
    return torch.Generator().manual_seed(seed)


def test_topk_sends_exactly_the_largest_entries_of_all_tensors_together():
    gradients = draw(0, (5, 4), (20,))
    sent = torch.cat([g.flatten() for g in TopK(topk_ratio=0.2).process(gradients, fresh())])
    entries = torch.cat([g.flatten() for g in gradients]).numpy()
    kept = np.sort(np.argsort(-np.abs(entries))[:8])
    assert sent.nonzero().flatten().tolist() == kept.tolist()
    assert np.array_equal(sent.numpy()[kept], entries[kept])
    ties = TopK(topk_ratio=0.5).process((torch.ones(4),), fresh())
    assert ties[0].tolist() == [1, 1, 0, 0]


def test_topk_sends_later_what_it_left_out_and_loses_nothing():
    """Sum of releases + memory is the sum of gradients; a loop over plain lists says the same."""
    rounds = [draw(seed, (3, 4), (5,)) for seed in range(6)]
    sent = TopK(topk_ratio=0.2).process_all(rounds, fresh())
    memory = np.zeros(17)
    for gradients, release in zip(rounds, sent, strict=True):
        waiting = memory + np.concatenate([g.numpy().ravel() for g in gradients])
        expected = np.where(np.abs(waiting) >= np.sort(np.abs(waiting))[-3], waiting, 0.0)
        np.testing.assert_allclose(np.concatenate([g.numpy().ravel() for g in release]), expected)
        memory = waiting - expected
    assert np.abs(memory).max() > 0.1


def test_a_chain_of_topk_remembers_over_the_releases_of_one_call_only(flat):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Linear(6, 3)
    images, labels = torch.rand(2, 6), torch.tensor([0, 1])
    chain = defenses.create("topk", topk_ratio=1 / 21)
    whole = flat(defenses.create("none").release(model, F.cross_entropy, images, labels, seed=0).gradients)
    several = chain.releases(model, F.cross_entropy, images, labels, seed=0, count=40)
    assert [int(flat(r.gradients).count_nonzero()) for r in several] == [1] * 40
    (alone,) = chain.releases(model, F.cross_entropy, images, labels, seed=0, count=1)
    assert torch.equal(flat(alone.gradients), flat(several[0].gradients))
    mean = flat(combined(several).gradients)
    assert (
        float((mean - whole).norm() / whole.norm())
        < 0.6
        < float((flat(alone.gradients) - whole).norm() / whole.norm())
    )


@pytest.mark.parametrize("bits", [1, 3])
def test_qsgd_rounds_to_its_levels_without_bias_and_with_the_variance_of_its_rule(bits):
    (gradient,) = draw(1, (30,))
    levels, norm, count = 2**bits - 1, float(gradient.norm()), 4000
    generator = fresh()
    draws = torch.stack(
        [Quantize(quantize_bits=bits).process((gradient,), generator)[0] for _ in range(count)]
    )
    steps = draws.abs() / norm * levels
    torch.testing.assert_close(steps, steps.round(), rtol=0, atol=1e-9)
    share = (gradient.abs() / norm * levels).frac()
    deviation = norm / levels * (share * (1 - share)).sqrt()
    assert bool((draws * gradient >= 0).all())
    z = (draws.mean(0) - gradient) / (deviation / count**0.5)
    assert float(z.abs().max()) < 4.5
    assert 0.6 < float(z.square().mean()) < 1.6
    torch.testing.assert_close(draws.std(0), deviation, rtol=0.15, atol=1e-3 * norm)


def test_qsgd_leaves_zero_and_its_largest_level_alone():
    gradients = (torch.zeros(4), torch.tensor([0.0, -3.0]))
    for before, after in zip(gradients, Quantize().process(gradients, fresh()), strict=True):
        assert torch.equal(before, after)


def test_signs_are_plain_or_scaled_by_the_mean_magnitude_of_each_tensor():
    gradients = (torch.tensor([0.5, -2.0, 0.0, 1.5]), torch.tensor([-7.0]))
    assert [g.tolist() for g in Sign().process(gradients, fresh())] == [[1, -1, 0, 1], [-1]]
    assert [g.tolist() for g in Sign(sign_scale="mean").process(gradients, fresh())] == [[1, -1, 0, 1], [-7]]


@pytest.mark.parametrize("percent", [0.0, 10.0, 37.5, 99.0])
def test_percentile_is_numpys(percent):
    gradients = draw(2, (7, 5), (19,))
    after = Percentile(percentile=percent, percentile_gamma=0.8).process(gradients, fresh())
    entries = np.concatenate([g.numpy().ravel() for g in gradients])
    cutoff = np.percentile(np.abs(entries), percent)
    expected = np.clip(np.where(np.abs(entries) < cutoff, 0, entries), -0.8, 0.8)
    np.testing.assert_array_equal(np.concatenate([g.numpy().ravel() for g in after]), expected)
    assert (np.abs(expected) == 0.8).any()

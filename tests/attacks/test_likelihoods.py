"""Of candidates, the informed attacker picks the true one behind heuristics that draw at random."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import defenses
from attacks.prior_aware import scores
from defenses.quantisation import Quantize
from dpbench.protocol import Release, combined

BATCH, CANDIDATES, OTHERS = 4, 10, 3
DEFENCES = {
    "censor": {},
    "quantize": {"quantize_bits": 1},
    "clip+quantize": {"quantize_bits": 1, "max_grad_norm": 0.1},
    "prune+quantize": {"quantize_bits": 1, "prune_ratio": 0.9},
    "precode": {"precode_width": 16},
}


def setting(name):
    """Chain, victim's model and loss, what the others of a batch sum to, candidates' images and gradients."""
    chain = defenses.create(name, **DEFENCES[name])
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 32), nn.Sigmoid(), nn.Linear(32, 10)).eval()
    changed, loss = chain.victim(model, F.cross_entropy)
    images, labels = torch.rand(CANDIDATES + OTHERS, 3, 8, 8), torch.arange(CANDIDATES + OTHERS) % 10
    bound = DEFENCES[name].get("max_grad_norm", torch.inf)
    rows = []
    for x, y in zip(images.split(1), labels.split(1), strict=True):
        found = torch.autograd.grad(loss(changed(x), y), list(changed.parameters()))
        row = torch.cat([g.flatten() for g in found])
        rows.append(row * min(1.0, bound / float(row.norm())))
    gradients = torch.stack(rows)
    return chain, changed, loss, images, labels, gradients


def release_of(chain, model, loss, images, labels, seed, count=1):
    more = {"seed": seed, "count": count, "expected_batch_size": BATCH}
    return combined(chain.releases(model, loss, images, labels, **more))


@pytest.mark.parametrize("inclusion", [1.0, 0.5])
@pytest.mark.parametrize("name", DEFENCES)
def test_the_true_candidate_and_its_membership_are_told(name, inclusion):
    chain, model, loss, images, labels, gradients = setting(name)
    known, candidates = gradients[CANDIDATES:].sum(0), gradients[:CANDIDATES]
    others = range(CANDIDATES, CANDIDATES + OTHERS)
    absent = release_of(chain, model, loss, images[list(others)], labels[list(others)], 99)
    without = scores(absent, known, candidates, inclusion)
    assert bool((without < 0).all() if inclusion == 1 else (without < 1e-6).all())
    for truth in range(CANDIDATES):
        places = [truth, *others]
        release = release_of(chain, model, loss, images[places], labels[places], truth, count=2)
        found = scores(release, known, candidates, inclusion)
        assert int(found.argmax()) == truth
        assert float(found[truth]) > 0


def test_from_noise_candidates_are_guessed():
    """A release with nothing of the batch in it, as long as that of the first candidate."""
    chain, _, _, _, _, gradients = setting("quantize")
    known = gradients[CANDIDATES:].sum(0)
    model_sizes = [(32, 192), (32,), (10, 32), (10,)]
    right = 0
    for seed in range(40):
        generator = torch.Generator().manual_seed(seed)
        noise = tuple(torch.randn(size, generator=generator) for size in model_sizes)
        sent = Quantize(quantize_bits=1).process(noise, generator)
        names = tuple(map(str, range(4)))
        release = Release(names, sent, BATCH, tuple(stage.stage() for stage in chain.stages))
        right += int(scores(release, known, gradients[:CANDIDATES]).argmax()) == seed % CANDIDATES
    assert right <= 12  # of 40 by chance 4; 13 or more has a chance of 1e-4


def test_levels_have_the_chances_of_the_rounding():
    gradient, stage = (torch.tensor([3.0, -4.0, 0.0, 0.5]),), Quantize(quantize_bits=2)
    generator, counts, told = torch.Generator().manual_seed(0), {}, {}
    for _ in range(4000):
        sent = stage.process(gradient, generator)
        key = tuple(sent[0].round(decimals=4).tolist())
        counts[key] = counts.get(key, 0) + 1
        told[key] = float(stage.log_likelihood(Release(("w",), sent, 1), gradient).exp())
    assert sum(told.values()) == pytest.approx(1, abs=1e-2)
    for key, count in counts.items():
        assert count / 4000 == pytest.approx(told[key], abs=0.03)

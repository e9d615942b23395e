"""What every registered defence, and some chains, have to do; a new one is tested by registering it."""

from __future__ import annotations

import pytest
import torch

import defenses
from dpbench.testing.chains import released, victim
from dpbench.testing.defenses import CHECKS

CHAINS = (
    "clip+prune",
    "dp+prune",
    "dp+noise",
    "noise+prune",
    "prune+noise",
    "prune+prune",
    "clip+noise+prune",
    "clip+topk",
    "quantize+topk",
)
NAMES = (*defenses.names(), *CHAINS)
COARSE = {"quantize", "outpost", "sparse-vector"}
"""Their random draws may leave a small tensor as it was."""
NOISY = [
    name
    for name in NAMES
    if any(stage.repeatable for stage in defenses.stages(name)) and not COARSE & set(name.split("+"))
]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", NAMES)
def test_contract(name, check):
    check(name)


@pytest.mark.parametrize("name", NOISY)
def test_noise_reaches_every_tensor(name):
    first, second, third = released(victim(), name, count=3)
    (other,) = released(victim(), name, seed=1)
    for pair in ((first, second), (second, third), (first, other)):
        assert not any(torch.equal(a, b) for a, b in zip(*(r.gradients for r in pair), strict=True))

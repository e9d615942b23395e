"""Pruning against sorting, and its edges."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from defenses.pruning import Prune
from dpbench.protocol import InputError

torch.set_num_threads(1)
GENERATOR = torch.Generator()


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 60), min_size=1, max_size=4),
    thousandths=st.integers(0, 999),
    scope=st.sampled_from(["layer", "global"]),
    seed=st.integers(0, 2**32),
)
def test_the_largest_entries_survive_unchanged(sizes, thousandths, scope, seed):
    generator = torch.Generator().manual_seed(seed)
    gradients = tuple(torch.randn(n, generator=generator, dtype=torch.float64) for n in sizes)
    pruned = Prune(prune_ratio=thousandths / 1000, prune_scope=scope).process(gradients, GENERATOR)
    groups = (
        zip(gradients, pruned, strict=True)
        if scope == "layer"
        else [(torch.cat(gradients), torch.cat(pruned))]
    )
    for before, after in groups:
        dropped = min(len(before) * thousandths // 1000, len(before) - 1)  # whole numbers: no rounding
        kept = np.sort(np.argsort(np.abs(before.numpy()))[dropped:])
        assert after.nonzero().flatten().tolist() == kept.tolist()
        assert torch.equal(after[kept], before[kept])


def test_scopes_differ_where_layers_differ_in_scale():
    gradients = (torch.tensor([[3.0, -4.0]]), torch.tensor([0.1, -0.2]))
    layer = Prune(prune_ratio=0.5).process(gradients, GENERATOR)
    everywhere = Prune(prune_ratio=0.5, prune_scope="global").process(gradients, GENERATOR)
    assert [g.tolist() for g in layer] == [[[0.0, -4.0]], [0.0, pytest.approx(-0.2)]]
    assert [g.tolist() for g in everywhere] == [[[3.0, -4.0]], [0.0, 0.0]]


def test_zero_gradients_and_a_ratio_of_zero_change_nothing():
    gradients = (torch.zeros(5), torch.arange(4.0))
    for scope in ("layer", "global"):
        assert torch.equal(
            Prune(prune_ratio=0.9, prune_scope=scope).process(gradients, GENERATOR)[0], gradients[0]
        )
        same = Prune(prune_ratio=0.0, prune_scope=scope).process(gradients, GENERATOR)
        assert all(torch.equal(a, b) for a, b in zip(same, gradients, strict=True))


@pytest.mark.parametrize("ratio", [-0.1, 1.0, 2.0, float("nan")])
def test_a_ratio_outside_its_range_is_refused(ratio):
    with pytest.raises(InputError, match=r"`prune_ratio` must be (at least 0|below 1|a finite)"):
        Prune(prune_ratio=ratio)


def test_an_unknown_scope_is_refused():
    with pytest.raises(InputError, match=r"`prune_scope` must be one of layer, global, not 'channel'"):
        Prune(prune_ratio=0.5, prune_scope="channel")

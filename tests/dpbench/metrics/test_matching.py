from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dpbench.metrics import match, matched
from dpbench.protocol import InputError

# Machines may be busy, and the fixtures that hand out trunks change nothing between examples.
relaxed = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def noise(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def cheapest(costs):
    """Least total of one cost per row and column, by trying every permutation."""
    rows = range(len(costs))
    return min(sum(costs[i, order[i]] for i in rows) for order in permutations(rows))


def total(costs, order):
    assert sorted(order.tolist()) == list(range(len(costs)))
    return sum(costs[i, j] for i, j in enumerate(order.tolist()))


@relaxed
@given(st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_mse_assignment_is_as_cheap_as_brute_force(batch, seed):
    images, originals = noise(2, batch, 3, 5, 4, seed=seed)
    x, y = images.double().numpy(), originals.double().numpy()
    costs = ((y[:, None] - x[None]) ** 2).mean((2, 3, 4))  # [original, image]
    assert total(costs, match(images, originals, "mse")) == pytest.approx(cheapest(costs), abs=1e-9)


@settings(relaxed, max_examples=6)
@given(st.integers(2, 6), st.integers(0, 2**32 - 1))
def test_lpips_assignment_is_as_cheap_as_brute_force(random_trunks, batch, seed):
    images, originals = noise(2, batch, 3, 32, 32, seed=seed)
    with torch.no_grad():
        costs = np.array(
            [
                [random_trunks["alex"](x[None], y[None], normalize=True).item() for x in images]
                for y in originals
            ]
        )
    assert total(costs, match(images, originals)) == pytest.approx(cheapest(costs), abs=1e-6)


@relaxed
@given(st.permutations(range(8)), st.integers(0, 2**32 - 1), st.floats(0, 0.1))
def test_a_permutation_of_noisy_images_is_undone(order, seed, strength):
    originals = noise(8, 3, 8, 8, seed=seed)
    recovered = originals + strength * (noise(8, 3, 8, 8, seed=seed + 1) - 0.5)
    assert match(recovered[list(order)], originals, "mse").equal(torch.tensor(order).argsort())


def test_matching_is_of_what_is_seen_after_clamping():
    originals = torch.stack([torch.zeros(3, 8, 8), torch.ones(3, 8, 8)])
    images = torch.stack([torch.full((3, 8, 8), 0.4), torch.full((3, 8, 8), -9.0)])
    images[1, :, :2] = 40  # unclamped, this would be far from both and the choice another
    assert match(images, originals, "mse").tolist() == [1, 0]


def test_no_image_serves_twice():
    originals = noise(1, 3, 8, 8).repeat(3, 1, 1, 1)
    images = noise(3, 3, 8, 8, seed=1)
    images[0] = originals[0]
    assert sorted(match(images, originals, "mse").tolist()) == [0, 1, 2]


def test_cost_is_lpips_where_it_can_be_had_and_mse_elsewhere(random_trunks):
    images, originals = noise(2, 5, 3, 32, 32, seed=9)
    by_cost = {cost: match(images, originals, cost) for cost in ("lpips", "mse")}
    assert not by_cost["lpips"].equal(by_cost["mse"])  # else this test shows nothing
    assert match(images, originals).equal(by_cost["lpips"])
    small, small_originals = images[..., :30], originals[..., :30]
    assert match(small, small_originals).equal(match(small, small_originals, "mse"))


def test_without_a_trunk_the_cost_is_mse(no_trunks):
    images, originals = noise(2, 3, 3, 32, 32)
    assert match(images, originals).equal(match(images, originals, "mse"))
    with pytest.raises(InputError, match="no source answered"):
        match(images, originals, "lpips")


def test_unknown_names_list_the_known_ones(no_trunks):
    images = noise(2, 3, 32, 32)
    with pytest.raises(InputError, match="'ssim'; known: lpips, mse"):
        match(images, images, "ssim")
    with pytest.raises(InputError, match="'resnet'; known: alex, vgg"):
        match(images, images, net="resnet")


LABELS, GREY = torch.arange(5), torch.full((3, 32, 32), 0.5)


@pytest.mark.parametrize("net", ["vgg", None])
def test_matched_images_line_up_and_the_trunk_decides_the_cost(random_trunks, net):
    outputs, originals = noise(2, 5, 3, 32, 32, seed=9)
    scored = matched(outputs, originals, LABELS, GREY, lpips_net=net)
    expected = match(outputs, originals, "lpips" if net else "mse", net or "alex")
    assert scored.order.equal(expected)
    assert scored.images.equal(outputs[expected])
    assert scored.outputs.equal(outputs)


def test_images_of_an_attack_on_labels_keep_their_order():
    originals = noise(5, 3, 32, 32)
    scored = matched(originals.flip(0), originals, LABELS, GREY, rebuilds_images=False)
    assert scored.order.equal(LABELS)


def test_what_is_scored_is_clamped_and_checked():
    originals, outputs = noise(5, 3, 32, 32), 3 * noise(5, 3, 32, 32, seed=1) - 1
    scored = matched(outputs, originals, LABELS, GREY)
    assert scored.outputs.equal(outputs.clamp(0, 1))
    assert scored.images.equal(outputs.clamp(0, 1)[scored.order])
    with pytest.raises(InputError, match="NaN"):
        matched(outputs + torch.nan, originals, LABELS, GREY)
    with pytest.raises(InputError, match=r"originals' size, \(3, 32, 32\), not \(3, 16, 16\)"):
        matched(outputs, originals, LABELS, GREY, others=(noise(2, 3, 16, 16), LABELS[:2]))
    assert matched(outputs, originals, LABELS, GREY, others=(originals[:0], LABELS[:0])).others is None

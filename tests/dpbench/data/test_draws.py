"""Both rules for batches."""

import hashlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dpbench.data import (
    Dataset,
    disjoint_batches,
    disjoint_places,
    draw_batch,
    draw_disjoint,
    draws,
    load_data,
)
from dpbench.protocol import InputError


def labelled(labels):
    n = len(labels)
    images = torch.arange(n, dtype=torch.uint8)[:, None, None, None].expand(n, 3, 2, 2).clone()
    return Dataset("toy", images, torch.tensor(labels), 10, (0.5,) * 3, (0.2,) * 3, torch.zeros(3, 2, 2))


# The rule for batches: written down here a second time, from its documentation.


def by_the_rule(count, seed):
    keys = {
        hashlib.sha256(b"dpbench batch " + str(seed).encode() + b" " + str(i).encode()).hexdigest(): i
        for i in range(count)
    }
    return [keys[k] for k in sorted(keys)]


@pytest.mark.parametrize("seed", [0, 7, -1])
def test_random_draw_follows_the_published_rule(seed):
    batch = draw_batch(load_data("samples"), 6, seed, "random")
    assert list(batch.indices) == by_the_rule(20, seed)[:6]
    assert batch.images.dtype == torch.float32
    assert torch.equal((batch.images * 255).round().byte(), load_data("samples").images[list(batch.indices)])
    assert torch.equal(batch.labels, load_data("samples").labels[list(batch.indices)])


def test_distinct_draw_takes_the_first_of_each_label():
    samples = load_data("samples")
    for seed in range(5):
        batch = draw_batch(samples, 8, seed)
        assert len(set(batch.labels.tolist())) == 8
        for index in batch.indices:
            order = by_the_rule(20, seed)
            same = [i for i in order if samples.labels[i] == samples.labels[index]]
            assert index == same[0]
        assert batch.indices[:3] == draw_batch(samples, 3, seed).indices


def test_the_default_batch_never_moves():
    assert draw_batch(load_data("samples"), 4, 0).indices == (0, 1, 14, 5)
    assert draw_batch(labelled(list(range(10)) * 1000), 4, 3, "random").indices == (3185, 2945, 6640, 685)


def test_every_image_can_be_drawn_about_equally_often():
    toy = labelled([i % 10 for i in range(20)])
    counts = np.bincount(
        [draw_batch(toy, 1, seed, "random").indices[0] for seed in range(2000)], minlength=20
    )
    assert ((counts - 100) ** 2 / 100).sum() < 43.8  # chi-squared, 19 degrees of freedom, p = 0.001


def test_draws_that_cannot_be():
    toy = labelled([0, 0, 1])
    with pytest.raises(InputError, match="toy has 3 images"):
        draw_batch(toy, 4, 0, "random")
    with pytest.raises(InputError, match="covers 2 classes"):
        draw_batch(toy, 3, 0)
    with pytest.raises(InputError, match="cannot be drawn"):
        draw_batch(toy, 0, 0)
    with pytest.raises(InputError, match="distinct, random"):
        draw_batch(toy, 1, 0, "all")


def same_images_never_share(data, batch_size, label_draw, passes=2):
    """Draws whole passes, and checks what holds of all their batches; returns the first pass."""
    m = disjoint_batches(data, batch_size, label_draw)
    drawn = [draw_disjoint(data, batch_size, seed, label_draw) for seed in range(passes * m)]
    for start in range(0, passes * m, m):
        indices = [index for batch in drawn[start : start + m] for index in batch.indices]
        assert len(set(indices)) == m * batch_size
    for batch in drawn:
        assert torch.equal(batch.labels, data.labels[list(batch.indices)])
        assert torch.equal((batch.images * 255).round().byte(), data.images[list(batch.indices)])
        if label_draw == "distinct":
            assert len(set(batch.labels.tolist())) == batch_size
    return drawn[:m]


@settings(max_examples=60, deadline=None)
@given(labels=st.lists(st.integers(0, 5), min_size=1, max_size=24), data=st.data())
def test_no_image_comes_twice_before_the_data_set_is_used_up(labels, data):
    toy = labelled(labels)
    same_images_never_share(toy, data.draw(st.integers(1, len(labels))), "random")
    batch_size = data.draw(st.integers(1, len(set(labels))))
    first = same_images_never_share(toy, batch_size, "distinct")
    if max(labels.count(label) for label in labels) <= len(labels) // batch_size:
        assert len(first) == len(labels) // batch_size


def most_by_brute_force(counts, batch_size):
    """The most batches of different labels: taking the fullest labels first is optimal."""
    counts, batches = list(counts), 0
    while True:
        counts.sort(reverse=True)
        if len(counts) < batch_size or counts[batch_size - 1] < 1:
            return batches
        counts[:batch_size] = [count - 1 for count in counts[:batch_size]]
        batches += 1


@settings(max_examples=60, deadline=None)
@given(labels=st.lists(st.integers(0, 4), min_size=1, max_size=30), data=st.data())
def test_as_many_distinct_batches_as_there_can_be(labels, data):
    batch_size = data.draw(st.integers(1, len(set(labels))))
    counts = [labels.count(label) for label in set(labels)]
    assert disjoint_batches(labelled(labels), batch_size) == most_by_brute_force(counts, batch_size)


@pytest.mark.parametrize("batch_size", [1, 3, 4, 7, 10])
@pytest.mark.parametrize("label_draw", ["distinct", "random"])
def test_balanced_data_are_used_up_whole(batch_size, label_draw):
    toy = labelled([i % 10 for i in range(70)])
    first = same_images_never_share(toy, batch_size, label_draw)
    assert len(first) == 70 // batch_size


def test_seeds_0_and_1_hold_different_images_at_a_batch_of_one():
    """Under the older rule they hold the same one."""
    samples = load_data("samples")
    assert draw_batch(samples, 1, 0).indices == draw_batch(samples, 1, 1).indices
    assert len({draw_disjoint(samples, 1, seed).indices for seed in range(20)}) == 20


def test_the_next_pass_has_another_order():
    toy = labelled([i % 10 for i in range(20)])
    first, second = (
        [draw_disjoint(toy, 1, seed, "random").indices[0] for seed in range(start, start + 20)]
        for start in (0, 20)
    )
    assert first != second
    assert sorted(first) == sorted(second)
    before = [draw_disjoint(toy, 1, seed, "random").indices[0] for seed in range(-20, 0)]
    assert sorted(before) == sorted(first)
    assert before != first


def test_the_disjoint_rule_is_the_documented_one():
    def order(number):
        return sorted(range(20), key=lambda i: hashlib.sha256(b"dpbench pass %d %d" % (number, i)).digest())

    samples = load_data("samples")
    assert draw_disjoint(samples, 3, 1, "random").indices == tuple(order(0)[3:6])
    assert draw_disjoint(samples, 3, 6 + 2, "random").indices == tuple(order(1)[6:9])
    first = {}
    for index in order(0):
        first.setdefault(int(samples.labels[index]), index)
    assert draw_disjoint(samples, 2, 0).indices == tuple(list(first.values())[:2])


@pytest.mark.parametrize("label_draw", ["distinct", "random"])
@pytest.mark.parametrize("first_seed", [0, 3, 9])
def test_the_places_of_several_seeds_are_those_of_each_up_to_the_end_of_the_pass(label_draw, first_seed):
    data = labelled([i % 3 for i in range(17)])
    in_a_pass = disjoint_batches(data, 3, label_draw)
    found = disjoint_places(data, 3, first_seed, 4, label_draw)
    assert len(found) == min(4, in_a_pass - first_seed % in_a_pass)
    each = [draw_disjoint(data, 3, first_seed + i, label_draw).indices for i in range(len(found))]
    assert found == each


def test_disjoint_draws_that_cannot_be():
    toy = labelled([0, 0, 1])
    with pytest.raises(InputError, match="toy has 3 images"):
        draw_disjoint(toy, 4, 0, "random")
    with pytest.raises(InputError, match="covers 2 classes"):
        draw_disjoint(toy, 3, 0)


def test_a_draw_that_was_interrupted_does_not_spoil_the_next_one(monkeypatch):
    data = load_data("samples")
    expected = draws.draw_disjoint(data, 2, 3).indices
    draws._pass.cache_clear()
    order = draws._distinct

    def interrupted(*given):
        yield next(order(*given))
        raise KeyboardInterrupt

    monkeypatch.setattr(draws, "_distinct", interrupted)
    with pytest.raises(KeyboardInterrupt):
        draws.draw_disjoint(data, 2, 3)
    monkeypatch.undo()
    assert draws.draw_disjoint(data, 2, 3).indices == expected

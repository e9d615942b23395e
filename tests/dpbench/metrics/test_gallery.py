from __future__ import annotations

import pytest
import torch
from scipy.stats import binomtest

from dpbench.metrics import GALLERY, decoys, draw_others, identified, matched, measure
from dpbench.metrics.gallery import FEWEST


def noise(count, seed=0):
    return torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


def test_decoys_have_the_originals_label_where_there_are_enough():
    labels = torch.tensor([0] * 30 + [1] * (FEWEST - 1) + [2] * (FEWEST - 2) + [3])
    others = noise(len(labels), 1)
    chosen = decoys(noise(4), torch.tensor([0, 1, 2, 7]), others, labels)
    assert chosen[0].equal(labels == 0)
    assert chosen[1].equal(labels == 1)
    assert chosen[2].all()  # one too few, so any label
    assert chosen[3].all()


def test_a_gallery_has_its_size_and_is_drawn_at_random_for_each_image():
    count = 3 * GALLERY
    others, labels = noise(count, 1), torch.zeros(count, dtype=torch.int64)
    chosen = decoys(noise(8), labels[:8], others, labels)
    assert chosen.sum(1).tolist() == [GALLERY - 1] * 8
    assert len({tuple(row.tolist()) for row in chosen}) == 8
    # the places are used alike, not the first ones of the data set
    first = int(chosen[:, : count // 2].sum())
    assert binomtest(first, 8 * (GALLERY - 1), 0.5).pvalue > 1e-4


def test_decoys_depend_on_the_image_alone():
    others, labels = noise(300, 1), torch.zeros(300, dtype=torch.int64)
    originals = (noise(3) * 255).round() / 255
    chosen = decoys(originals, labels[:3], others, labels)
    assert decoys(originals, labels[:3], others, labels).equal(chosen)
    assert decoys(originals[2:].double() + 1e-4, labels[:1], others, labels).equal(chosen[2:])


def test_copies_of_the_batch_are_no_decoys():
    originals, others = noise(2), noise(40, 1)
    others[5], others[9] = originals[0], originals[1]
    others[7, :, 0] = originals[0, :, 0]  # the same first row only
    labels = torch.zeros(40, dtype=torch.int64)
    chosen = decoys(originals, labels[:2], others, labels)
    assert not chosen[:, [5, 9]].any()
    assert chosen.sum(1).tolist() == [38, 38]


def measured(originals, labels, others, other_labels):
    grey = torch.full((3, 8, 8), 0.5)
    return measure(matched(originals, originals, labels, grey, others=(others, other_labels)))


def test_columns_say_how_large_a_gallery_is_and_of_which_labels():
    labels = torch.tensor([0] * 25 + [1] * 5)
    rows = measured(noise(2), torch.tensor([0, 1]), noise(30, 1), labels)
    assert [row["gallery_size"] for row in rows] == [26, 31]
    assert [row["gallery_labels"] for row in rows] == ["same", "any"]
    assert all(row["identified"] for row in rows)


def test_an_original_without_a_decoy_has_no_gallery():
    originals = noise(2)
    rows = measured(originals, torch.tensor([0, 0]), originals[:1], torch.tensor([0]))
    assert not {"identified", "gallery_size", "gallery_labels"} & set(rows[0])


def test_images_drawn_for_a_batch_make_full_galleries_of_its_labels():
    labels = torch.arange(4000) % 8
    drawn = draw_others(labels, wanted=torch.tensor([3, 5, 5]), taken=[3, 5, 13, 11], seed=0)
    assert labels[drawn].bincount().tolist() == [0, 0, 0, GALLERY - 1, 0, GALLERY - 1]
    assert not set(drawn.tolist()) & {3, 5, 13, 11}
    assert not drawn.equal(draw_others(labels, torch.tensor([3, 5]), [3, 5, 13, 11], seed=1))
    assert binomtest(int((drawn < 2000).sum()), len(drawn), 0.5).pvalue > 1e-4


def test_images_of_any_label_are_drawn_where_one_is_rare():
    labels = torch.tensor([0, 1] * 500 + [2] * (FEWEST - 1))
    drawn = draw_others(labels, wanted=torch.tensor([0, 2]), taken=[1000], seed=0)
    assert len(set(drawn.tolist()) - {1000}) == GALLERY - 1
    assert binomtest(int((labels[drawn] == 0).sum()), GALLERY - 1, 500 / 1018).pvalue > 1e-4
    assert (labels[draw_others(labels, torch.tensor([2]), [], seed=0)] == 2).all()


@pytest.mark.parametrize(("alike", "at_chance"), [(FEWEST - 1, True), (5, False)])
def test_knowing_the_label_helps_only_against_decoys_of_any_label(alike, at_chance):
    generator, found, trials, grey = torch.Generator().manual_seed(0), 0, 200, torch.full((3, 8, 8), 0.5)
    label, labels = torch.tensor([1]), torch.tensor([1] * alike + [0] * 60)
    for _ in range(trials):
        classes = torch.rand(2, 3, 8, 8, generator=generator)
        own, others = classes[label], classes[labels]
        own, others = ((x + torch.rand(x.shape, generator=generator)) / 2 for x in (own, others))
        chosen = decoys(own, label, others, labels)
        found += bool(identified(classes[label], own, others, grey, chosen))
    chance = 1 / (1 + int(chosen.sum()))
    assert (binomtest(found, trials, chance).pvalue > 1e-4) == at_chance

"""The statistic: chance is 1/200 where nothing leaks, whatever the attack returns."""

import pytest
import torch
from scipy.stats import binom
from torch.nn import functional as F

from dpbench.cell.result import CellResult
from dpbench.cell.spec import BatchSpec
from dpbench.data import datasets, load_data
from dpbench.frontier.evidence import CHANCE
from dpbench.frontier.ranking import FIRST_SEED, Ranking
from dpbench.protocol import InputError
from tests.helpers.tiny import tiny

SIZE = 2


@pytest.fixture(scope="module")
def data():
    return tiny(size=4)


@pytest.fixture(scope="module")
def ranking(data):
    return Ranking(data, SIZE, "random")


def batch(ranking, data, seed):
    return data.images[list(ranking._places[seed - FIRST_SEED])].float() / 255


def filled(ranking, data, seed, outputs):
    """The rows of a batch, ranked."""
    rows = [{} for _ in range(SIZE)]
    ranking.fill(seed, CellResult(rows, outputs, batch(ranking, data, seed)))
    return rows


def test_unrelated_outputs_rank_first_once_in_200_times():
    """An attack that always returns what some images of the data look like most: the worst case.

    In 12 orders of the data set 1,200 batches are ranked; the bounds are those of 99.9 %.
    """
    generator = torch.Generator().manual_seed(5)
    outputs = torch.rand(SIZE, 3, 4, 4, generator=generator)
    first = top_tenth = 0
    for _ in range(12):
        data = tiny(size=4)
        data.images[:40] = (0.6 * data.images[:40] + 0.4 * 255 * outputs[0]).round().byte()
        data.images[:] = data.images[torch.randperm(len(data.images), generator=generator)]
        ranking = Ranking(data, SIZE, "random")
        for seed in range(FIRST_SEED, FIRST_SEED + 100):
            image, decoys = ranking.drawn(seed)
            gallery = torch.cat([batch(ranking, data, seed)[image][None], data.images[decoys].float() / 255])
            centred = [F.normalize((each.double() - 0.5).flatten(1)) for each in (gallery, outputs)]
            scores = (centred[0] @ centred[1].T).amax(1)
            rank = int((scores > scores[0]).sum())
            assert filled(ranking, data, seed, outputs)[image]["ranked_first"] == (rank == 0)
            first, top_tenth = first + (rank == 0), top_tenth + (rank < 20)
    low, high = binom.ppf([0.0005, 0.9995], 1200, CHANCE)
    assert low <= first <= high
    low, high = binom.ppf([0.0005, 0.9995], 1200, 0.1)
    assert low <= top_tenth <= high


def test_the_image_itself_ranks_first_wherever_it_stands_and_however_faint(ranking, data):
    for seed in range(FIRST_SEED, FIRST_SEED + 20):
        faint = data.mean_image + 1e-3 * (batch(ranking, data, seed).flip(0) - data.mean_image)
        rows = filled(ranking, data, seed, faint)
        assert [row["ranked_first"] for row in rows if row] == [True]
        assert [row["best_correlation"] for row in rows if row] == pytest.approx([1.0], abs=1e-4)
        assert [SIZE - 1 - row["best_output"] for row in rows if row] == [ranking.drawn(seed)[0]]


@pytest.mark.parametrize("target", [None, 1])
def test_a_fishing_server_is_asked_about_an_image_of_the_class_that_it_fishes_for(target):
    """It was asked about any image of the batch, most of which it does not hear."""
    data = tiny(size=4)
    ranking = Ranking(data, SIZE, "distinct")
    for seed in range(FIRST_SEED, FIRST_SEED + 20):
        images = batch(ranking, data, seed)
        labels = data.labels[list(ranking._places[seed - FIRST_SEED])].tolist()
        fished = labels[0] if target is None else target
        rows = [{"threat_model": "fishing", "label": label, "target": target} for label in labels]
        # the image that it hears, and for the others the mean image
        outputs = torch.where(torch.tensor(labels)[:, None, None, None] == fished, images, data.mean_image)
        ranking.fill(seed, CellResult(rows, outputs, images))
        asked = [(row["label"], row["ranked_first"]) for row in rows if "ranked_first" in row]
        assert asked == [(fished, True)]


def test_the_mean_image_ties_and_fails(ranking, data):
    rows = filled(ranking, data, FIRST_SEED, data.mean_image.expand(SIZE, -1, -1, -1))
    assert [row for row in rows if row] == [
        {"ranked_first": False, "best_correlation": 0.0, "best_output": 0}
    ]


def test_decoys_have_the_label_and_were_in_no_batch_so_far(ranking, data):
    attacked = set()
    for seed in range(FIRST_SEED, FIRST_SEED + ranking.batches):
        places = ranking._places[seed - FIRST_SEED]
        attacked |= {*places}
        image, decoys = ranking.drawn(seed)
        assert len(decoys) == len({*decoys}) == 199
        assert not attacked & {*decoys}
        assert set(data.labels[decoys].tolist()) == {int(data.labels[places[image]])}
    assert len(attacked) == SIZE * ranking.batches


def test_an_informed_attacker_has_the_gallery_as_candidates(data, monkeypatch):
    monkeypatch.setitem(datasets._items, "small", lambda argument, size: data)
    batch_of = {"data": "small", "images_digest": "", "batch_size": 3, "label_draw": "random"}
    network = {"model": "lenet", "norm": "none", "victim": "untrained", "weights_digest": ""}
    ranking = Ranking(data, 3, "random")
    for seed in range(FIRST_SEED, FIRST_SEED + 5):
        scene = ranking.candidates(BatchSpec(**batch_of, **network, batch_seed=seed))
        image, decoys = ranking.drawn(seed)
        assert scene.indices[0] == ranking._places[seed - FIRST_SEED][image]
        assert {*scene.indices} == {*ranking._places[seed - FIRST_SEED]}
        assert torch.equal(scene.images, data.images[list(scene.indices)].float() / 255)
        assert torch.equal(scene.labels, data.labels[list(scene.indices)])
        assert torch.equal(scene.others[0], data.images[decoys].float() / 255)
        assert set(scene.others[1].tolist()) == {int(scene.labels[0])}


def test_one_image_of_each_batch_is_drawn_whichever(ranking):
    images = [ranking.drawn(seed)[0] for seed in range(FIRST_SEED, FIRST_SEED + 60)]
    assert 15 < sum(images) < 45
    assert images == [ranking.drawn(seed)[0] for seed in range(FIRST_SEED, FIRST_SEED + 60)]


def test_there_are_as_many_batches_as_leave_enough_decoys():
    assert Ranking(tiny(size=4, each=420), 1, "random").batches == 200
    few = Ranking(tiny(size=4, each=210), 1, "random").batches
    assert 11 <= few <= 22


def test_an_image_with_a_copy_is_neither_attacked_nor_a_decoy():
    data = tiny(size=4)
    ranking = Ranking(data, SIZE, "distinct")
    places = ranking._places[0]
    image, _ = ranking.drawn(FIRST_SEED)
    label = data.labels[places[image]]
    copy = next(i for i in range(800) if data.labels[i] == label and i not in places)
    data.images[copy] = data.images[places[image]]
    other, decoys = Ranking(data, SIZE, "distinct").drawn(FIRST_SEED)
    assert other != image
    assert copy not in decoys


def test_where_all_images_have_copies_none_is_asked_about():
    data = tiny(copies=True, size=4)
    ranking = Ranking(data, SIZE, "random")
    rows = filled(ranking, data, FIRST_SEED, torch.rand(SIZE, 3, 4, 4))
    assert rows == [{}, {}]


def test_a_small_data_set_is_refused():
    with pytest.raises(InputError, match=r"200 images of each label or more, and samples has \d of one"):
        Ranking(load_data("samples"), 1, "distinct")

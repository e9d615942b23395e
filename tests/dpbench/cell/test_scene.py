"""The batch, the victim, and other images: who may know which."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest
import torch

from dpbench.cell import scene as scenes
from dpbench.cell.rows import image_shares, of_victim
from dpbench.cell.run import run_cell
from dpbench.cell.scene import images_digest, moved, prepare, with_statistics
from dpbench.data import draw_disjoint, load_data
from dpbench.protocol import InputError
from dpbench.victim import weights_digest
from tests.helpers.cells import cell, part, small_scene

RESNET = {"model": "resnet20", "norm": "frozen-bn", "victim": "early"}


def hashes(images) -> set[bytes]:
    return {hashlib.sha256(image.numpy().tobytes()).digest() for image in images}


def many(count: int, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, 3, 8, 8), dtype=torch.uint8, generator=generator)
    return {"images": images, "labels": torch.arange(count) % 10, "mean_image": torch.full((3, 8, 8), 0.5)}


def test_images_that_are_not_square_are_refused(data):
    data(images=load_data("samples").images[..., :24])
    with pytest.raises(InputError, match="`image_size`"):
        prepare(cell().batch)


@pytest.mark.parametrize("batch_size", [1, 4])
def test_gallery_and_other_images_are_disjoint_from_the_batch(batch_size):
    found = prepare(cell(batch_size=batch_size).batch)
    for images, labels in (found.others, found.gallery):
        assert len(images) == len(labels) == 20 - batch_size
        assert not hashes(images) & hashes(found.images)


def test_copies_of_attacked_images_are_left_out(data):
    usual = load_data("samples")
    data(images=torch.cat([usual.images] * 2), labels=torch.cat([usual.labels] * 2))
    found = prepare(cell().batch)
    assert len(found.others[0]) == len(found.gallery[0]) == 36
    for images, _ in (found.others, found.gallery):
        assert not hashes(images) & hashes(found.images)


def test_decoys_are_apart_from_what_the_attacker_may_know(data):
    data(**many(4000))
    found = prepare(cell().batch)
    assert not found.shared
    assert len(found.others[0]) == scenes.OTHERS
    assert len(found.gallery[0]) == 2 * 199  # of each label in the batch
    assert not hashes(found.others[0]) & hashes(found.gallery[0])
    assert not hashes(found.others[0]) & hashes(found.images)
    assert set(found.gallery[1].tolist()) == set(found.labels.tolist())


def test_a_small_data_set_has_to_share_them():
    found = prepare(cell().batch)
    assert found.shared
    assert hashes(found.others[0]) == hashes(found.gallery[0])


def test_other_images_do_not_depend_on_their_place_in_the_data(data):
    """The first images of a folder may be all of one class."""
    data(**(many(4000) | {"labels": torch.arange(4000) // 400}))
    assert len(prepare(cell().batch).others[1].unique()) == 10


def test_smaller_logits_make_another_less_confident_victim():
    plain, quiet = (prepare(cell(**RESNET, batch_size=4, logit_scale=scale).batch) for scale in (1, 0.25))
    images = plain.images
    with torch.no_grad():
        torch.testing.assert_close(quiet.victim.model(images), plain.victim.model(images) / 4)
    losses = [[loss for loss, _ in image_shares(scene)] for scene in (plain, quiet)]
    sure = min(range(4), key=losses[0].__getitem__)
    assert losses[1][sure] > losses[0][sure]


def test_of_a_head_alone_nothing_else_is_sent_and_the_victim_is_as_accurate():
    whole, head = (prepare(cell(**RESNET, trainable=part).batch) for part in ("all", "head"))
    sent = {name for name, p in head.victim.model.named_parameters() if p.requires_grad}
    assert sent == {"fc.weight", "fc.bias"}
    with torch.no_grad():
        assert torch.equal(whole.victim.model(whole.images), head.victim.model(head.images))
    assert all(p.requires_grad for p in whole.victim.model.parameters())
    row, kept = of_victim(head), sum(p.numel() for p in whole.victim.model.parameters())
    assert row["trained_parameters"] == 64 * 10 + 10
    assert row["trained_parameters"] + row["frozen_parameters"] == kept
    assert "trained_parameters" not in of_victim(whole)


def test_images_that_change_during_a_run_are_refused(data):
    samples = load_data("samples")
    known = cell(images_digest=images_digest(draw_disjoint(samples, 2, 0), samples))
    assert prepare(known.batch).indices
    data(images=255 - load_data("samples").images)
    with pytest.raises(InputError, match="changed since the run was planned"):
        prepare(known.batch)
    assert run_cell(known).status == "failed"


def test_labels_that_change_during_a_run_are_refused(data):
    samples = load_data("samples")
    known = cell(images_digest=images_digest(draw_disjoint(samples, 2, 0), samples))
    data(labels=(load_data("samples").labels + 1) % 10)
    with pytest.raises(InputError, match="changed since the run was planned"):
        prepare(known.batch)


def test_an_image_outside_the_batch_makes_another_cell(data):
    """It may be a decoy or a candidate, so results with it are not those without it."""
    samples = data(content="a")
    known = cell(images_digest=images_digest(draw_disjoint(samples, 2, 0), samples))
    assert prepare(known.batch).indices
    data(content="b")  # the batch itself is the same
    with pytest.raises(InputError, match="or another image of that data, has changed"):
        prepare(known.batch)


def test_weights_that_change_during_a_run_are_refused(tmp_path):
    file, samples = tmp_path / "own.pt", load_data("samples")
    model = prepare(cell().batch).victim.model
    torch.save(model.state_dict(), file)
    planned = weights_digest("convnet", "none", "untrained", str(file), samples, 32)
    given = cell(part("dlg", iterations=1), weights=str(file), weights_digest=planned)
    assert run_cell(given).status == "ok"
    torch.save({name: value + 0.01 for name, value in model.state_dict().items()}, file)
    result = run_cell(given)
    assert result.status == "failed"
    assert "own.pt has changed since the run was planned: start it again." in result.rows[0]["error"]


def test_statistics_are_made_of_other_images_only_where_none_are_shipped():
    bare = small_scene(2)
    found = with_statistics(bare)
    assert found.fitted
    assert found.statistics.spectrum.shape == (3, 8, 8)
    again = with_statistics(replace(bare, images=1 - bare.images))
    assert torch.equal(again.statistics.spectrum, found.statistics.spectrum)
    shipped = prepare(cell().batch)
    assert with_statistics(shipped) is shipped
    alone = replace(bare, others=None)
    assert with_statistics(alone) is alone
    few = replace(bare, others=tuple(x[: scenes.FEWEST - 1] for x in bare.others))
    assert with_statistics(few) is few


def test_the_callers_model_stays_as_it_is():
    scene = small_scene(2)
    copy = moved(scene, torch.device("cpu"))
    assert copy.victim.model is not scene.victim.model
    with torch.no_grad():
        copy.victim.model[1].weight.zero_()
    assert bool(scene.victim.model[1].weight.any())


def test_a_generator_for_other_images_is_refused():
    wrong = run_cell(cell("latent-projection", generator="cifar10", image_size=64))
    assert wrong.status == "skipped"
    assert "32x32 and the victim takes 64x64" in wrong.rows[0]["error"]

"""Other people's images: who gets them, and that no attacked one is among them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from dpbench.cell import public
from dpbench.cell.public import PublicSource, public_images
from dpbench.cell.run import measure, run_cell
from dpbench.cell.scene import prepare, with_statistics
from dpbench.data import load_data
from tests.helpers.cells import cell, part, small_scene

LMMSE = cell(part("lmmse", public_images=4), labels="known", batch_size=1)


def noise(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=generator)
    return images, torch.arange(count) % 10


def whole(images):
    return {bytes(image.flatten().tolist()) for image in (images * 255).round().byte()}


def test_training_images_come_first_and_copies_of_secrets_are_left_out(data):
    """Of batch and gallery, whichever label the copy has."""
    samples, (images, labels) = load_data("samples"), noise(30)
    data(public=lambda: (torch.cat([images, samples.images]), torch.cat([labels, samples.labels])))
    scene = prepare(cell(batch_size=2).batch)
    found = public_images(scene.public, scene.images, scene.gallery)
    assert torch.equal(found.images, images)
    assert torch.equal(found.labels, labels)
    assert not scene.public.decoys


def test_large_data_of_ones_own_gives_images_outside_batch_and_gallery(data):
    images, labels = noise(2500)
    data(images=images, labels=labels, public=None)
    scene = prepare(cell(batch_size=2).batch)
    found = public_images(scene.public, scene.images, scene.gallery)
    assert len(found.images) == 2500 - 2 - len(scene.gallery[0])
    assert not whole(found.images) & (whole(scene.images) | whole(scene.gallery[0]))
    assert not scene.public.decoys


def test_few_images_are_decoys_too(data):
    data(public=None)
    scene = prepare(cell(batch_size=2).batch)
    found = public_images(scene.public, scene.images, scene.gallery)
    assert scene.public.decoys
    assert len(found.images) == 18
    assert not whole(found.images) & whole(scene.images)


@pytest.mark.parametrize("decoys", [True, False])
def test_whether_decoys_were_known_is_said(decoys):
    scene = replace(with_statistics(small_scene()), fitted=False)  # statistics as if they were shipped
    others = scene.others if decoys else (torch.rand(25, 3, 8, 8), torch.arange(25) % 5)
    scene = replace(scene, public=PublicSource(lambda: others, decoys))
    assert measure(LMMSE, scene).rows[0]["decoys_known"] is decoys
    assert measure(cell("dlg"), scene).rows[0]["decoys_known"] is False


def test_images_are_loaded_for_an_attack_that_needs_them_only():
    loaded = []
    scene = small_scene()
    source = PublicSource(lambda: (loaded.append(1), scene.others)[1], decoys=True)
    for attack, expected in ((cell(part("dlg", iterations=2)), 0), (LMMSE, 1)):
        measure(attack, replace(scene, public=source))
        assert len(loaded) == expected


def test_no_images_no_estimate():
    result = public.public_images(None, small_scene().images, None)
    assert result is None
    skipped = run_cell(LMMSE, scenes=lambda _: replace(small_scene(), public=None))
    assert skipped.status == "skipped"
    assert "lmmse needs public images" in skipped.rows[0]["error"]

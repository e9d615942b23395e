"""The honest server: the attack, the start it set out from, and its floors."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

import attacks
from attacks.prior_aware import flat
from dpbench.cell import release as releasing
from dpbench.cell.floors import Floor
from dpbench.cell.run import measure, run_cell
from dpbench.cell.scene import prepare
from dpbench.cell.threats import threat_models
from tests.helpers.cells import cell, dp, part, small_scene

QUICK = part("inverting-gradients", iterations=3)


def test_start_of_the_undefended_attack_comes_along_and_only_there():
    given = cell(QUICK)
    rows = measure(given, small_scene(2)).rows
    assert [row["attack"] for row in rows] == ["inverting-gradients"] * 2 + ["floor:start"] * 2
    assert {row["floor_of"] for row in rows[2:]} == {"inverting-gradients"}
    assert {row["key"] for row in rows} == {given.key()}
    defended = measure(cell(QUICK, dp(8.0)), small_scene(2)).rows
    assert {row["attack"] for row in defended} == {"inverting-gradients"}
    fed = measure(cell(QUICK, floor=Floor.NOISE_GRADIENT), small_scene(2)).rows
    assert {row["attack"] for row in fed} == {"floor:noise-gradient"}


def test_the_start_is_where_the_attack_set_out_from():
    """The same however long it searches, and not what it found."""
    short, long = (measure(cell(part("inverting-gradients", iterations=n)), small_scene(1)) for n in (2, 40))
    assert torch.equal(short.images[1], long.images[1])
    assert not torch.equal(long.images[0], long.images[1])
    assert long.rows[0]["psnr"] > long.rows[1]["psnr"]


def test_public_images_give_the_attack_its_prior():
    """Statistics of `others` reach the search at any size; without enough of them it says what it did."""
    scene = small_scene(1)
    few = replace(scene, others=tuple(x[:3] for x in scene.others))
    notes = [
        measure(cell(QUICK), given).rows[0]["note"] for given in (scene, few, replace(scene, others=None))
    ]
    assert notes[0] is None
    assert all("no statistics of public images" in note for note in notes[1:])


def test_noise_floor_knows_nothing_of_the_gradient(spy):
    given = cell("dlg", floor=Floor.NOISE_GRADIENT)
    run_cell(given)
    true = releasing.released(cell(), prepare(cell().batch))
    noise, gradient = flat(spy.release.gradients), flat(true.gradients)
    assert noise.norm() == pytest.approx(float(gradient.norm()), rel=1e-4)
    cosine = F.cosine_similarity(noise, gradient, 0)
    assert abs(cosine) < 5 / len(noise) ** 0.5 * 5  # tensors of few entries carry much of the norm


def test_each_attacks_noise_floor_has_noise_of_its_own(spy):
    found = []
    for attack, seed in (("dlg", 0), ("dlg", 0), ("idlg", 0), ("dlg", 1)):
        run_cell(cell(attack, floor=Floor.NOISE_GRADIENT, attack_seed=seed))
        found.append(flat(spy.release.gradients))
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])
    assert not torch.equal(found[0], found[3])


def test_floors_of_a_batch_need_no_attack(spy):
    for floor in (Floor.MEAN_IMAGE, Floor.CONSTANT_IMAGE):
        result = run_cell(cell(None, floor=floor))
        assert result.status == "ok"
        assert len(result.rows) == 2
    assert not hasattr(spy, "release")


def test_a_labels_only_attack_has_a_start_without_images():
    rows = measure(cell("label-restoration", labels="inferred"), small_scene(2)).rows
    assert {row["status"] for row in rows} == {"ok"}
    assert not any("psnr" in row for row in rows)


def test_it_is_the_usual_threat_model_and_takes_attacks_that_name_it():
    assert cell().threat.name == "honest"
    honest = threat_models["honest"]
    assert honest.suits(attacks.kind("dlg"))
    assert not honest.suits(attacks.kind("prior-aware"))
    assert threat_models["informed"].suits(attacks.kind("prior-aware"))
    assert list(threat_models)[:1] == ["honest"]

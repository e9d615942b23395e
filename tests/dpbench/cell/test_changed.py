"""Cells whose defence changes the network: what is attacked, trained and refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from dpbench.accuracy.utility import utility
from dpbench.cell.changed import prepared, with_changes
from dpbench.cell.public import PublicSource
from dpbench.cell.run import measure, run_cell
from dpbench.protocol import InputError, WithDivergence, bottleneck_head
from dpbench.victim import joint
from tests.helpers.cells import cell, part, small_scene

torch.set_num_threads(1)
PRECODE = part("precode", precode_width=4)
IDLG = part("idlg", iterations=40)


@pytest.fixture
def public(monkeypatch, tmp_path):
    """200 images of five brightnesses, which a linear network learns to tell apart; a cache of its own."""
    monkeypatch.setenv("DPBENCH_CACHE", str(tmp_path))
    monkeypatch.setattr(joint, "FEWEST", 100)
    monkeypatch.setattr(joint, "BATCH", 10)
    monkeypatch.setattr(joint, "RATE", 0.03)
    monkeypatch.setattr(joint, "_held", {})
    labels = torch.arange(200) % 5
    noise = torch.rand(200, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    images = (labels.view(-1, 1, 1, 1) * 40 + 20 * noise).byte()
    return PublicSource(lambda: (images, labels))


def loss_of(scene, public):
    images, labels = public.load()
    with torch.no_grad():
        return float(scene.victim.loss(scene.victim.model(images / 255), labels))


def test_an_untrained_victim_gets_fresh_weights():
    scene = small_scene()
    found = with_changes(cell(IDLG, PRECODE, victim="untrained"), scene)
    head = bottleneck_head(found.victim.model)[1]
    assert head.bottleneck.width == 4
    assert torch.equal(head.linear.weight, scene.victim.model[1].weight)
    assert found.victim.loss == WithDivergence(F.cross_entropy, 1e-3)
    for defence in ("none", "noise"):
        assert with_changes(cell(IDLG, defence), scene) is scene


def test_any_other_is_trained_on_with_its_bottleneck_and_kept(public, tmp_path, monkeypatch):
    scene = replace(small_scene(), public=public)
    fresh = with_changes(cell(IDLG, PRECODE, victim="untrained"), scene)
    asked = cell(IDLG, PRECODE, victim="early")
    told = []
    found = with_changes(asked, scene, lambda *said: told.append(said[:2]))
    assert told == [(done, 20) for done in range(1, 21)]
    assert loss_of(found, public) < 0.8 * loss_of(fresh, public)
    assert not torch.equal(bottleneck_head(found.victim.model)[1].linear.weight, scene.victim.model[1].weight)
    assert found.victim.accuracy is None
    assert len(list((tmp_path / "changed-victims").iterdir())) == 1
    monkeypatch.setattr(joint, "_held", {})
    monkeypatch.setattr(joint, "_trained", None)  # it is not trained again
    again = with_changes(asked, scene, lambda *_: pytest.fail("kept weights are not trained"))
    assert torch.equal(
        *(torch.cat([p.flatten() for p in each.victim.model.parameters()]) for each in (found, again))
    )


def test_without_public_images_nothing_is_trained():
    with pytest.raises(InputError, match="1,000 public images"):
        with_changes(cell(IDLG, PRECODE, victim="early"), small_scene())


def test_a_server_that_changes_the_network_too_is_refused():
    with pytest.raises(InputError, match="so does `threat_model` malicious-linear"):
        prepared(cell("analytic", PRECODE, "malicious-linear"), small_scene())


def test_client_and_attacker_have_the_changed_network():
    result = measure(cell(IDLG, PRECODE, attack_seed=1), small_scene())
    (row,) = result.rows
    assert (row["status"], row["precode_width"], row["release_repeats"]) == ("ok", 4, True)
    refused = run_cell(cell("analytic", PRECODE, "malicious-linear"), scenes=lambda _: small_scene())
    assert refused.rows[0]["status"] == "skipped"


def test_accuracy_is_that_of_the_changed_network(monkeypatch, tmp_path, public):
    """It learns through its codes; their divergence is no class."""
    images, labels = public.load()
    found = utility(
        lambda: torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 5)),
        (images, labels),
        (images, labels),
        defense="precode",
        precode_width=4,
        train_batch_size=20,
        epochs=20,
        learning_rate=0.03,
        seeds=0,
        progress=False,
    )
    assert found["defense"].tolist() == ["none", "precode"]
    assert found["accuracy"].iloc[1] > 0.8

"""The columns of a cell: what it claims, what it says where it has no result."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from dpbench.cell import parts, registered
from dpbench.cell.floors import Floor
from dpbench.cell.rows import (
    attack_and_defence,
    conditions,
    describe,
    image_shares,
    of_images,
    without_result,
)
from dpbench.cell.run import measure, run_cell
from dpbench.cell.scene import prepare
from dpbench.protocol import InputError
from dpbench.store import schema
from dpbench.store.columns import columns
from dpbench.store.columns import conditions as condition_columns
from tests.helpers.cells import cell, dp, part, small_scene

QUICK = part("dlg", iterations=2)
EMPTY = ("eps", "eps_release", "eps_replace", "delta", "rero_release", "success_bound", "membership_bound")
RESNET = {"model": "resnet20", "norm": "frozen-bn", "victim": "early", "batch_size": 1}


@pytest.mark.parametrize(
    "given",
    [
        cell(None, floor=Floor.MEAN_IMAGE),
        cell(QUICK),
        cell(QUICK, dp(None, noise_multiplier=0.6)),
        cell(QUICK, floor=Floor.NOISE_GRADIENT, attack_seed=1),
        cell("analytic", dp(8.0), "malicious-linear"),
        cell("prior-aware", dp(8.0), part("informed", trials=10, candidates=2)),
    ],
)
def test_rows_fit_the_schema(given):
    result = run_cell(given)
    table = schema.frame(schema.checked(row) for row in result.rows)
    assert (table["status"] == "ok").all()
    assert (table["key"] == given.key()).all()
    assert (
        len(result.images) == len(result.originals) == (0 if given.threat.name == "informed" else len(table))
    )


def test_dp_row_carries_its_guarantee():
    row = run_cell(cell(QUICK, dp(8.0))).rows[0]
    assert schema.checked(row).get("eps") is None
    assert row["eps_release"] == pytest.approx(8, rel=1e-3)
    assert row["noise_multiplier"] == pytest.approx(0.6002, rel=0.01)
    assert (row["sample_rate"], row["steps"], row["accountant"]) == (1, 1, "analytic")
    assert 0.1 < row["rero_release"] <= 1


def test_undefended_row_has_no_epsilon():
    row = schema.checked(measure(cell(QUICK), small_scene(2)).rows[0])
    assert {"eps", "eps_release", "noise_multiplier", "rero_release", "delta"}.isdisjoint(row)


@pytest.mark.parametrize("source", ["exact", "recovered", "running"])
@pytest.mark.parametrize("noise", [{"noise_multiplier": 0.6}, {"eps": 8.0}], ids=str)
def test_private_statistics_leave_no_epsilon(source, noise):
    """Where they were un-noised, sigma stays and nothing else, in whichever way the noise was asked for."""
    given = cell(
        part("deepinversion", iterations=1), dp(**({"eps": None} | noise)), bn_stats=source, **RESNET
    )
    row = run_cell(given).rows[0]
    assert row["status"] == "ok"
    assert row["noise_multiplier"] == pytest.approx(0.6, rel=1e-2)
    if source == "running":
        assert all(row[name] is not None for name in ("eps_release", "rero_release"))
        return
    assert not set(EMPTY) & set(schema.checked(row))
    skipped = without_result(given, "skipped", "Because.").rows[0]
    assert not set(EMPTY) & set(schema.checked(skipped))
    assert skipped["noise_multiplier"] == row["noise_multiplier"]


def test_private_statistics_leave_an_informed_attacker_without_a_bound():
    given = cell(
        "prior-aware", dp(8.0), part("informed", trials=10, candidates=2), bn_stats="exact", batch_size=1
    )
    row = measure(given, small_scene()).rows[0]
    assert row["noise_multiplier"] == pytest.approx(0.6002, rel=0.01)
    assert row["success"] is not None
    assert not set(EMPTY) & set(schema.checked(row))


def test_shares_are_the_gradients_own():
    shares = image_shares(prepare(cell(batch_size=4).batch))
    assert sum(share for _, share in shares) == pytest.approx(1)
    assert all(loss > 0 and 0 < share < 1 for loss, share in shares)


def test_shares_by_hand():
    scene = small_scene(3)
    norms = []
    for image, label in zip(scene.images, scene.labels, strict=True):
        delta = scene.victim.model(image[None])[0].softmax(0).detach()
        delta[label] -= 1
        norms.append(float(delta.norm() * torch.cat([image.flatten(), torch.ones(1)]).norm()))
    found = [share for _, share in image_shares(scene)]
    assert found == pytest.approx([norm / sum(norms) for norm in norms], rel=1e-4)


def in_training_mode(scene, *layers):
    model = nn.Sequential(nn.Flatten(), *layers, nn.Linear(scene.images[0].numel(), scene.num_classes))
    return replace(scene, victim=replace(scene.victim, model=model.train()))


@pytest.mark.parametrize("clients", [1, 3])
def test_training_mode_makes_no_difference_where_no_image_changes_another_ones_loss(clients):
    scene = replace(in_training_mode(small_scene(3), nn.Dropout(0.5), nn.ReLU(inplace=True)), clients=clients)
    found = image_shares(scene)
    scene.victim.model.eval()
    assert found == [pytest.approx(pair, rel=1e-5) for pair in image_shares(scene)]


def test_no_shares_where_batch_norm_mixes_the_images_of_a_client_but_losses_in_its_batch():
    scene = in_training_mode(small_scene(4), nn.BatchNorm1d(small_scene(1).images[0].numel()))
    scene, mean = replace(scene, clients=2), scene.victim.model[1].running_mean.clone()
    found = image_shares(scene)
    assert all(share != share for _, share in found)
    assert torch.equal(scene.victim.model[1].running_mean, mean)
    for i in (0, 2):
        logits = copy.deepcopy(scene.victim.model)(scene.images[i : i + 2])
        wanted = nn.functional.cross_entropy(logits, scene.labels[i : i + 2], reduction="none").tolist()
        assert [loss for loss, _ in found[i : i + 2]] == pytest.approx(wanted)


@pytest.mark.parametrize(
    "asked",
    [
        cell(QUICK, dp(8.0), victim="early"),
        cell(QUICK, "clip", labels="inferred"),
        cell(part("dlg", iterations=3, restarts=2), part("clip+noise", noise_std=0.1)),
        cell("analytic", dp(8.0), part("malicious-linear", releases=2)),
    ],
)
def test_failed_row_stands_beside_those_of_the_same_conditions(monkeypatch, asked):
    registered.load()
    whole = run_cell(asked).rows[0]
    monkeypatch.setattr(parts, "attack_of", lambda cell: 1 / 0)
    failed = run_cell(asked).rows[0]
    assert failed["status"] == "failed"
    names = [name for name in condition_columns() if name != "labels"]
    assert {name: failed.get(name) for name in names} == {name: whole.get(name) for name in names}


@pytest.mark.parametrize(
    "given",
    [cell("nothing"), cell(defence="nothing"), cell(threat="nothing")],
    ids=["attack", "defence", "threat"],
)
def test_rows_of_an_unknown_part_say_whose_they_are(given):
    """A worker may lack a plugin that the run was planned with."""
    rows = [schema.checked(row) for row in without_result(given, "skipped", "Because.").rows]
    assert [row["image"] for row in rows] == [0, 1]
    for row in rows:
        assert row["key"] == given.key()
        assert (row["attack"], row["defense"]) == (given.attack.name, given.defence.name)
        assert (row["status"], row["error"]) == ("skipped", "Because.")


@pytest.mark.parametrize("training", [False, True])
def test_a_failed_row_has_the_mode_of_its_victim(monkeypatch, training):
    scene = small_scene(2)
    scene.victim.model.train(training)
    monkeypatch.setattr(parts, "attack_of", lambda cell: 1 / 0)
    failed = run_cell(cell(QUICK), scenes=lambda batch: scene).rows[0]
    assert (failed["status"], failed["mode"]) == ("failed", "train" if training else "eval")


def test_the_mode_of_a_victim_that_nobody_has_seen_is_not_made_up():
    """A cell whose process was killed."""
    ours, own = (without_result(cell(QUICK, model=name), "failed", "").rows[0] for name in ("lenet", "Mine"))
    assert (ours["mode"], own["mode"]) == ("eval", None)


def test_a_preset_s_values_look_as_if_they_were_given():
    names = ("max_iterations", "restarts", "matching", "preset", "terms")
    left_open = conditions(cell("gradinversion"))
    given = conditions(
        cell(part("gradinversion", iterations=1_500, restarts=4, matching="cosine", preset="tuned"))
    )
    assert [left_open[name] for name in names] == [1_500, 4, "cosine", "tuned", "registered"]
    assert [left_open[name] for name in names] == [given[name] for name in names]
    paper = conditions(cell(part("gradinversion", preset="paper", restarts=2)))
    assert (paper["max_iterations"], paper["restarts"], paper["matching"]) == (20_000, 2, "layer-l2")


@pytest.mark.parametrize("wrong", [InputError("no"), ZeroDivisionError()], ids=str)
def test_conditions_of_an_attack_that_cannot_be_made(monkeypatch, wrong):
    """Its rows say what was asked for, and why there is no result."""

    def refuse(name, **given):
        raise wrong

    monkeypatch.setattr(parts.attacks, "create", refuse)
    row = run_cell(cell(part("dlg", iterations=7))).rows[0]
    assert row["max_iterations"] == 7
    assert row["status"] in ("failed", "skipped")


def test_columns_hold_what_plays_a_role():
    registered.load()
    plain, defended = conditions(cell("dlg")), conditions(cell("dlg", "clip"))
    assert "adaptive" not in plain
    assert defended["adaptive"] is True
    assert "releases" not in defended
    assert conditions(cell("dlg", part("noise")))["releases"] == 1
    training = conditions(cell("dlg", "dp"))
    assert (training["train_size"], training["accountant"]) == (50_000, "pld")
    assert training["train_batch_size"] == 256
    assert conditions(cell("dlg", part("dp", train_batch_size="batch")))["train_batch_size"] == 2
    assert not {"train_size", "train_batch_size", "epochs", "accountant"} & set(
        conditions(cell("dlg", dp(1.0)))
    )
    assert conditions(cell(part("dlg", iterations=7)))["max_iterations"] == 7
    for given in (cell("dlg", dp(1.0)), cell("prior-aware", "noise", "informed"), cell("gradinversion")):
        assert set(conditions(given)) <= set(columns())


def test_a_guess_knows_neither_attacker_nor_seed():
    row = conditions(cell(None, floor=Floor.CONSTANT_IMAGE, attack_seed=3))
    assert (row["attack"], row["floor"]) == ("floor:constant-image", "constant-image")
    assert row["attack_seed"] is row["threat_model"] is row["labels"] is row["floor_of"] is None
    fed = conditions(cell("dlg", floor=Floor.NOISE_GRADIENT, attack_seed=3))
    assert (fed["attack"], fed["floor"], fed["floor_of"]) == ("floor:noise-gradient", "noise-gradient", "dlg")
    assert fed["attack_seed"] == 3


def test_the_users_weights_are_named_by_their_hash():
    assert conditions(cell(weights="own.pt", weights_digest="abc"))["weights"] == "abc"
    assert conditions(cell(weights_digest="abc"))["weights"] is None


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (cell("dlg"), "convnet/none/untrained B=2 (batch 0): dlg on none"),
        (cell("dlg", attack_seed=4), "convnet/none/untrained B=2 (batch 0, attack seed 4): dlg on none"),
        (cell(None, floor=Floor.MEAN_IMAGE), "convnet/none/untrained B=2 (batch 0): floor:mean-image"),
        (cell("dlg", floor=Floor.START), "convnet/none/untrained B=2 (batch 0): floor:start (dlg)"),
        (
            cell("dlg", logit_scale=0.25),
            "convnet/none/untrained logits x0.25 B=2 (batch 0): dlg on none",
        ),
    ],
)
def test_one_line_for_messages(given, said):
    assert describe(given) == said


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (cell("dlg", "dp"), "dlg on dp ε=1"),
        (cell("dlg", part("dp", eps=8.0)), "dlg on dp ε=8"),
        (cell("dlg", part("dp", noise_multiplier=0.6)), "dlg on dp σ=0.6"),
        (cell("dlg", part("clip", max_grad_norm=2.0)), "dlg on clip C=2"),
        (cell(part("gradinversion", matching="layer-l2")), "gradinversion matching=layer-l2 on none"),
        (cell("analytic", threat="malicious-linear"), "analytic on none malicious-linear"),
        (cell("dlg", "noise", part("honest", releases=3)), "dlg on noise honest releases=3"),
        (cell("dlg", "nothing"), "dlg on nothing"),
    ],
)
def test_words_for_what_differs_from_the_defaults(given, said):
    assert attack_and_defence(given) == said


def test_a_guarantee_is_in_the_row_only_where_the_release_has_it():
    """`noise` alone is no mechanism of bounded sensitivity, however much of it there is."""
    row = measure(cell(QUICK, part("noise", noise_std=100.0)), small_scene(2)).rows[0]
    assert not {"eps_release", "rero_release", "noise_multiplier"} & set(schema.checked(row))
    scene = replace(small_scene(2), gallery=None)
    row = measure(cell(QUICK, part("clip+noise", noise_std=0.5)), scene).rows[0]
    assert row["noise_multiplier"] == 1.0
    assert row["eps_release"] > 0


def test_copies_in_a_batch_name_the_first_of_them():
    scene = small_scene(4)
    images = scene.images.clone()
    images[2] = images[0]
    found = of_images(replace(scene, images=images, indices=(5, 6, 7, 8)))
    assert [row["copy_of"] for row in found] == [None, None, 5, None]
    assert [row["original_index"] for row in found] == [5, 6, 7, 8]

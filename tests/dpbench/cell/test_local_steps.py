"""Clients of FedAvg in a cell: what they send, what the rows say, and what has no place there."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import cross_entropy

from dpbench.cell import release as releasing
from dpbench.cell.floors import Floor
from dpbench.cell.run import measure
from dpbench.protocol import InputError, LocalTraining
from dpbench.store import schema
from tests.helpers.cells import cell, dp, part, small_scene
from tests.helpers.plans import attacked, cells

QUICK = part("inverting-gradients", iterations=3)
TWICE = part("honest", local_epochs=2, local_batch_size=2, local_lr=0.1)


def test_what_is_sent_is_the_update_of_real_weights():
    """SGD by hand over three images in batches of two, twice; and the scene's model stays as it is."""
    scene = small_scene(3)
    before = {name: p.clone() for name, p in scene.victim.model.state_dict().items()}
    release = releasing.released(cell(threat=TWICE), scene)
    model = copy.deepcopy(scene.victim.model)
    for rows in (slice(0, 2), slice(2, 3)) * 2:
        parameters = list(model.parameters())
        loss = cross_entropy(model(scene.images[rows]), scene.labels[rows])
        with torch.no_grad():
            for p, g in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
                p -= 0.1 * g
    assert release.local == LocalTraining(epochs=2, batch_size=2, lr=0.1)
    for (name, old), sent in zip(before.items(), release.gradients, strict=True):
        assert torch.allclose(old - 4 * 0.1 * sent, model.state_dict()[name], atol=1e-6)
        assert torch.equal(old, scene.victim.model.state_dict()[name])


def test_one_epoch_of_one_batch_is_the_gradient():
    """But for the rounding of the weights."""
    scene = small_scene(2)
    found = releasing.released(cell(threat=part("honest", local_epochs=1)), scene)
    plain = releasing.released(cell(), scene)
    assert plain.local is None
    for f, p in zip(found.gradients, plain.gradients, strict=True):
        assert torch.allclose(f, p, rtol=1e-3, atol=1e-5)


def test_rows_say_what_was_done_locally_and_how_it_was_matched():
    """With the floor of the start; those of a gradient say nothing of it."""
    given = cell(QUICK, part("prune", prune_ratio=0.5), TWICE)
    result = measure(given, small_scene(3))
    table = schema.frame(schema.checked(row) for row in result.rows)
    columns = ["local_epochs", "local_batch_size", "local_lr", "update", "status"]
    assert table[columns].drop_duplicates().to_numpy().tolist() == [[2, 2, 0.1, "simulate", "ok"]]
    assert table[["eps", "eps_release"]].isna().all(axis=None)
    undefended = measure(cell(QUICK, threat=TWICE), small_scene(3)).rows
    assert {row["floor"] for row in undefended} == {None, "start"}
    plain = measure(cell(QUICK), small_scene(3)).rows[0]
    assert plain["local_epochs"] is None
    assert "update" not in plain
    assert given.key() != replace(given, threat=part("honest")).key()


def test_the_noise_floor_goes_the_same_way(spy):
    measure(cell(QUICK, threat=TWICE, floor=Floor.NOISE_GRADIENT), small_scene(2))
    assert spy.release.local == LocalTraining(epochs=2, batch_size=2, lr=0.1)


def test_a_users_update_is_clipped_as_a_whole_and_noised():
    """DP-FedAvg: the sum over its images to C, sigma C of noise on it, the guarantee of one gradient."""
    scene = small_scene(3)
    plain = releasing.released(cell(threat=TWICE), scene)
    norm = float(torch.cat([3 * g.flatten() for g in plain.gradients]).norm())
    clip = part("clip", unit="user", max_grad_norm=norm / 4)
    clipped = releasing.released(cell(QUICK, clip, TWICE), scene)
    for c, p in zip(clipped.gradients, plain.gradients, strict=True):
        assert torch.allclose(c, p / 4, rtol=1e-3, atol=1e-7)
    private = dp(8.0, unit="user", max_grad_norm=norm / 4)
    noised = releasing.released(cell(QUICK, private, TWICE), scene)
    off = torch.cat([(n - c).flatten() for n, c in zip(noised.gradients, clipped.gradients, strict=True)])
    assert float(off.std()) == pytest.approx(noised.noise_on_sum() / 3, rel=0.1)
    row = measure(cell(QUICK, private, TWICE), scene).rows[0]
    expected = measure(cell(QUICK, private), scene).rows[0]
    for name in ("eps_release", "noise_multiplier", "unit"):
        assert row[name] == expected[name]
    assert row["local_epochs"] == 2
    assert row["release_norm"] <= row["release_norm_limit"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (cell(QUICK, dp(8.0), TWICE), "dp works on each sample's gradient, .* leave out `local_epochs`"),
        (cell(QUICK, "clip+prune", TWICE), "clip works on each sample's gradient"),
        (cell(QUICK, part("dp-ftrl", unit="user", eps_scope="release"), TWICE), "dp-ftrl works on each"),
        (cell(QUICK, threat=TWICE, batch_size=3, clients=3), "leave out `clients` or `local_epochs`"),
        (cell("peel", threat=TWICE), "peel needs the gradient of one step"),
        (
            cell("analytic", threat=part("malicious-linear", local_epochs=1)),
            "malicious-linear reads a gradient: leave out `local_epochs`",
        ),
    ],
)
def test_what_has_no_place_there_is_refused(given, said):
    with pytest.raises(InputError, match=said):
        measure(given, small_scene(3))


def test_a_training_that_diverges_is_refused():
    scene = small_scene(2)
    scene = replace(scene, victim=replace(scene.victim, loss=lambda logits, _: logits.square().mean()))
    with pytest.raises(InputError, match="diverged: use a smaller `local_lr`"):
        measure(cell(QUICK, threat=part("honest", local_epochs=60, local_lr=1e3)), scene)


def test_axes_multiply_only_the_cells_that_they_concern():
    ways = ("simulate", "surrogate")
    assert len(attacked(update=ways, local_lr=(0.1, 0.2), local_batch_size=(1, 2))) == 1
    found = attacked(update=ways, local_lr=(0.1, 0.2), local_epochs=(1, 3))
    assert len(found) == 2 * 2 * 2
    assert {c.attack.given.get("update", "simulate") for c in found} == set(ways)
    assert len(attacked(update=ways, local_epochs=(1,), attack=("analytic", "dlg"))) == 1 + 2
    floors = [c for c in cells(local_epochs=(1, 3)) if c.floor is Floor.NOISE_GRADIENT]
    assert {c.threat.given["local_epochs"] for c in floors} == {1, 3}


def test_all_settings_start_alike():
    """Search and noise have the same seeds whatever the client does, so settings are compared in pairs."""
    one, other = cell(QUICK, threat=TWICE), cell(QUICK)
    assert one.search_seed() == other.search_seed()
    assert one.release_seed() == other.release_seed()

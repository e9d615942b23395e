"""Kernels of each client's own: the sum comes apart by client, each part a planted layer of one client's."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from dpbench.cell.floors import Floor
from dpbench.cell.run import measure
from dpbench.protocol import InputError
from dpbench.store import schema
from dpbench.victim.imprint import ImprintModel
from tests.helpers.cells import cell, dp, part, small_scene


def clients(count, each=2):
    """`each` images of noise, of `count` clients."""
    return replace(small_scene(count * each), clients=count)


def given(defence="none", count=3, each=2, **more):
    return cell("analytic", defence, "loki", clients=count, batch_size=each, **more)


@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("defence", ["none", "clip"])
def test_every_image_of_the_first_client_comes_out_of_the_sum(count, defence):
    """And is known to be that client's: the other clients' outputs are not offered to its originals."""
    found = measure(given(defence, count), clients(count)).rows[:2]
    assert all(row["psnr"] > 80 for row in found)


def test_each_client_has_a_view_with_its_own_images(spy):
    """The last one that the attack sees is that of the last client, and fits a planted layer for it alone."""
    scene = clients(3)
    measure(given(), scene)
    release, knowledge = spy.release, spy.knowledge
    assert isinstance(knowledge.model, ImprintModel)
    assert torch.equal(knowledge.labels, scene.labels[4:])
    loss = scene.victim.loss(knowledge.model(scene.images[4:]), scene.labels[4:])
    own = dict(zip([n for n, _ in knowledge.model.named_parameters()],
                   torch.autograd.grad(loss, list(knowledge.model.parameters())), strict=True))  # fmt: skip
    sent = dict(zip(release.names, release.gradients, strict=True))
    scale = float(sent["imprint.weight"].norm() / own["imprint.weight"].norm())
    assert scale == pytest.approx(1000, rel=1e-3)  # of the kernels
    for name in ("imprint.weight", "imprint.bias"):
        near = 1e-4 * float(own[name].abs().max())
        torch.testing.assert_close(sent[name] / scale, own[name], atol=near, rtol=0)
    assert (release.batch_size, release.clients) == (2, 1)


def test_without_kernels_of_its_own_a_client_is_not_told_apart(monkeypatch):
    """All clients get the first one's model: its block holds everybody's images."""
    monkeypatch.setattr("dpbench.cell.threats.loki.Loki.sent", lambda self, model, client: model)
    scene = clients(3, 1)
    assert measure(given(each=1), scene).rows[0]["psnr"] < 30  # one bin, three images


def test_the_kernels_leave_the_clip_norm_to_the_layer():
    """So each part of the sum, clipped, is as long as the same client's planted layer would be."""
    plain = cell("analytic", part("clip"), "malicious-linear", batch_size=1)
    found, scene = [], small_scene(1)
    for each in (plain, given(part("clip"), 1, 1)):
        found.append(measure(each, scene).rows[0])
    assert found[1]["release_norm"] == pytest.approx(found[0]["release_norm"], rel=1e-3) == 1.0


def test_noise_hides_them_and_pure_noise_holds_nothing():
    noisy = dp(None, noise_multiplier=10.0)
    assert all(row["psnr"] < 20 for row in measure(given(noisy), clients(3)).rows[:2])
    assert all(row["psnr"] < 20 for row in measure(given(floor=Floor.NOISE_GRADIENT), clients(3)).rows[:2])


def test_under_little_noise_the_images_are_estimated_as_from_a_layer_for_one_client():
    noisy = dp(None, noise_multiplier=0.001)
    both = (given(noisy, 1, 1), cell("analytic", noisy, "malicious-linear", batch_size=1))
    loki, plain = (measure(each, small_scene(1)).rows[0]["psnr"] for each in both)
    assert loki == pytest.approx(plain, abs=1.5)
    assert plain > 25


def test_the_change_grows_with_the_clients():
    seen = [schema.checked(measure(given(count=n), clients(n)).rows[0]) for n in (1, 3)]
    added = [row["added_parameters"] for row in seen]
    assert added[1] - 128 == 3 * (added[0] - 128) > 0  # the 128 biases serve all clients
    assert "psnr_unbiased_probe" not in seen[0]


def test_a_defence_of_each_client_is_refused():
    with pytest.raises(InputError, match="prune"):
        measure(given(part("prune", prune_ratio=0.5), 1), clients(1))

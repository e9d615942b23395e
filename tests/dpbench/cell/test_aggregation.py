"""The sum over several clients: what is in it, how much noise, and what it is worth to whom."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

import defenses
from attacks.prior_aware import flat
from dpbench import privacy
from dpbench.cell import aggregation, columns, parts
from dpbench.cell import release as releasing
from dpbench.cell.run import measure, run_cell
from dpbench.cell.scene import prepare
from dpbench.protocol import InputError
from tests.helpers.cells import cell, dp, part, small_scene
from tests.helpers.informed import below_the_bound

CLIENTS, SIGMA, C = 4, 0.7, 0.5
ON_SUM = {"distributed": SIGMA, "central": SIGMA, "local": SIGMA * 2}
PLACES = list(ON_SUM)
OLD = {"dp": "52dbd02a2cb71cbf", "none": "b5b81b5845e8cd3e"}


def noisy(noise="distributed", unit="record", name="dp", **given):
    given = {"noise_multiplier": SIGMA, "max_grad_norm": C, "eps_scope": "release"} | given
    return part(name, noise=noise, unit=unit, **given)


def scene_of(clients, batch_size):
    return replace(small_scene(clients * batch_size), clients=clients)


def releases(given, count, images=None):
    """Released sums, [count, P]."""
    scene = scene_of(given.batch.clients, given.batch.batch_size)
    images = scene.images if images is None else images
    labels = scene.labels[-len(images) :] if len(images) else scene.labels[:0]
    made = releasing.each_release(given, scene, images, labels, count=count)
    assert {each.batch_size for each in made} == {len(scene.images)}
    return torch.stack([flat(each.gradients) for each in made]).double() * len(scene.images)


def outsider(defence, batch_size=1, clients=CLIENTS):
    """Somebody who sees what the server publishes."""
    return cell("prior-aware", defence, "informed", batch_size=batch_size, clients=clients)


def test_the_sum_is_that_of_what_each_client_computes():
    scene, given = scene_of(3, 2), cell("dlg", "none", clients=3)
    (found,) = releasing.each_release(given, scene, scene.images, scene.labels, count=1)
    chain = defenses.create("none")
    each = [
        flat(chain.release(scene.victim.model, F.cross_entropy, x, y, seed=0).gradients)
        for x, y in zip(scene.images.split(2), scene.labels.split(2), strict=True)
    ]
    torch.testing.assert_close(flat(found.gradients), torch.stack(each).mean(0))
    assert (found.batch_size, found.clients) == (6, 3)


@pytest.mark.parametrize("name", ["dp", "dp-ftrl"])
@pytest.mark.parametrize("unit", ["record", "user"])
@pytest.mark.parametrize("noise", PLACES)
def test_noise_on_the_sum(noise, unit, name):
    """As a distribution: standard deviation, whiteness over entries, and independence between releases."""
    given = outsider(noisy(noise, unit, name), batch_size=2)
    if name == "dp-ftrl":  # one release at a time: of several, later ones take noise back
        seeds = [replace(given, attack_seed=seed) for seed in range(20)]
        sums = torch.cat([releases(each, 1) for each in seeds])
    else:
        sums = releases(given, 60)
    clean = releases(outsider(part("clip", max_grad_norm=C, unit=unit), batch_size=2), 1)
    standard = (sums - clean) / (ON_SUM[noise] * C)
    entries = standard.numel()
    assert float(standard.std()) == pytest.approx(1, abs=5 / math.sqrt(2 * entries))
    assert abs(float(standard.mean())) < 5 / math.sqrt(entries)
    assert float(standard.pow(4).mean()) == pytest.approx(3, abs=5 * math.sqrt(96 / entries))
    assert abs(float((standard[:-1] * standard[1:]).mean())) < 5 / math.sqrt(entries)


@pytest.mark.parametrize("noise", PLACES)
def test_noise_of_each_client(noise):
    """A client's own message has its share, whatever the server adds."""
    sigmas = [
        getattr(chain.stages[0], "noise_multiplier", 0.0)
        for chain in aggregation.clients_of(outsider(noisy(noise)))
    ]
    share = {"distributed": SIGMA / 2, "local": SIGMA}
    assert sigmas == ([SIGMA, 0, 0, 0] if noise == "central" else [share[noise]] * CLIENTS)
    assert math.hypot(*sigmas) == pytest.approx(ON_SUM[noise])


def test_clients_draw_their_noise_apart():
    """With one noise for all, distributed shares would add up to sigma C sqrt(n)."""
    given = outsider(noisy("local"))
    one, four = releases(replace(given, batch=replace(given.batch, clients=1)), 40), releases(given, 40)
    assert float((four - four.mean(0)).std() / (one - one.mean(0)).std()) == pytest.approx(2, rel=0.05)


@pytest.mark.parametrize(("unit", "gone"), [("record", 1), ("user", 3)])
def test_a_unit_moves_the_sum_by_at_most_c(unit, gone):
    """A record of three, or the client with all three; C is far below any gradient's norm."""
    bound = 1e-3
    given = outsider(part("clip", max_grad_norm=bound, unit=unit), batch_size=3)
    images = scene_of(CLIENTS, 3).images
    (whole,), (fewer,) = releases(given, 1), releases(given, 1, images[gone:])
    assert 0.9 * bound < float((whole - fewer).norm()) <= bound * (1 + 1e-4)


def test_a_record_can_move_a_clipped_users_sum_by_more_than_c():
    """The user's other records take the place that it leaves, so the guarantee is for the user alone."""
    model = torch.nn.Linear(1, 1, bias=False)

    def own(outputs, labels):
        return (outputs[:, 0] * (1 - 2 * labels)).mean()  # gradients x and -x

    chain = defenses.create("clip", max_grad_norm=1.0, unit="user")
    images, labels = torch.tensor([[9.0], [3.0]]), torch.tensor([0, 1])
    both = chain.release(model, own, images, labels, seed=0).gradients[0] * 2
    alone = chain.release(model, own, images[1:], labels[1:], seed=0).gradients[0]
    assert float(both - alone) == pytest.approx(2, rel=1e-4)


def test_user_level_clipping_is_of_the_sum_and_leaves_a_short_one():
    scene = small_scene(3)
    plain, loose, tight = (
        flat(chain.release(scene.victim.model, F.cross_entropy, scene.images, scene.labels, seed=0).gradients)
        for chain in (
            defenses.create("none"),
            defenses.create("clip", max_grad_norm=1e3, unit="user"),
            defenses.create("clip", max_grad_norm=0.1, unit="user"),
        )
    )
    torch.testing.assert_close(loose, plain)
    assert 3 * float(tight.norm()) == pytest.approx(0.1, rel=1e-4)
    torch.testing.assert_close(F.normalize(tight, dim=0), F.normalize(plain, dim=0))


def guarantee_of(given):
    return parts.guarantee_of(given, parts.defence_of(given))


@pytest.mark.parametrize("noise", PLACES)
def test_epsilon_of_one_release_by_another_accountant(noise):
    from dp_accounting.pld.privacy_loss_distribution import from_gaussian_mechanism

    found = guarantee_of(outsider(noisy(noise)))
    assert found.noise_multiplier == pytest.approx(ON_SUM[noise])
    wanted = from_gaussian_mechanism(ON_SUM[noise]).get_epsilon_for_delta(1e-5)
    assert found.eps_release == pytest.approx(wanted, rel=2e-3)
    # and what each client sends, if the server sees that
    alone = {"distributed": SIGMA / 2, "local": SIGMA}
    eps = aggregation.eps_client(outsider(noisy(noise)), found)
    if noise == "central":
        assert eps is None
    else:
        wanted = from_gaussian_mechanism(alone[noise]).get_epsilon_for_delta(1e-5)
        assert eps == pytest.approx(wanted, rel=2e-3)


@pytest.mark.parametrize("unit", ["record", "user"])
def test_a_budget_of_a_training_by_another_accountant(unit):
    """Records are drawn from the client's, users from all clients: `train_size` counts either."""
    import dp_accounting

    recipe = {"eps": 3.0, "train_size": 1000, "train_batch_size": 20, "epochs": 2.0}
    found = guarantee_of(cell("dlg", part("dp", unit=unit, **recipe), clients=CLIENTS))
    assert (found.unit, found.sample_rate, found.steps) == (unit, 0.02, 100)
    event = dp_accounting.PoissonSampledDpEvent(0.02, dp_accounting.GaussianDpEvent(found.noise_multiplier))
    accountant = dp_accounting.pld.PLDAccountant().compose(event, 100)
    assert accountant.get_epsilon(1e-5) == pytest.approx(3.0, rel=5e-3)


def test_a_local_budget_is_each_clients_and_the_sum_has_less():
    central, local = (guarantee_of(outsider(dp(8.0, noise=noise))) for noise in ("central", "local"))
    assert central.eps_release == pytest.approx(8.0)
    assert aggregation.eps_client(outsider(dp(8.0, noise="local")), local) == pytest.approx(8.0)
    assert local.eps_release < 4
    assert local.rero_release == pytest.approx(privacy.reconstruction_bound(2 * central.noise_multiplier))


def test_of_a_whole_training_users_are_clients():
    given = cell("dlg", part("dp", unit="user", train_batch_size="batch", train_size=100), clients=CLIENTS)
    assert guarantee_of(given).sample_rate == CLIENTS / 100
    assert columns.shown(given)["train_batch_size"] == CLIENTS
    small = part("dp", unit="user", train_batch_size=2)
    with pytest.raises(InputError, match="no part of a training batch of 2"):
        parts.defence_of(cell("dlg", small, clients=CLIENTS))


def test_the_server_that_adds_the_noise_sees_none():
    """It gets the clipped sum, and its row has neither epsilon nor bound."""
    for unit in ("record", "user"):
        given = cell("dlg", noisy("central", unit), clients=CLIENTS)
        clean = cell("dlg", part("clip", max_grad_norm=C, unit=unit), clients=CLIENTS)
        assert torch.equal(releases(given, 1), releases(clean, 1))
    scene = scene_of(CLIENTS, 2)
    found = releasing.released(given, scene)
    assert found.guarantee is None
    assert found.noise_on_sum() == 0
    assert [stage.name for stage in found.defense] == ["clip"]
    row = measure(cell(part("dlg", iterations=1), given.defence, clients=CLIENTS), scene).rows[0]
    assert row["note"].startswith("The server adds the noise")
    assert row["noise_multiplier"] == SIGMA
    assert not {"eps_release", "rero_release", "eps_client"} & row.keys()
    assert row["release_norm"] <= row["release_norm_limit"] < C


def test_who_is_no_server_sees_central_noise():
    row = run_cell(cell("prior-aware", noisy("central"), part("informed", trials=10), clients=2)).rows[0]
    assert row["status"] == "ok", row["error"]
    assert row["eps_release"] == pytest.approx(privacy.epsilon(SIGMA, 1e-5))


@pytest.mark.parametrize("noise", PLACES)
def test_who_knows_all_others_stays_below_the_bound(noise):
    """It subtracts them, so that the others' images protect nobody from it; all their noise does."""
    given = cell("prior-aware", dp(6.0, noise=noise), part("informed", trials=60), clients=3)
    row = measure(given, scene_of(3, 2)).rows[0]
    sigma = guarantee_of(given).noise_multiplier
    assert row["success_bound"] == pytest.approx(privacy.reconstruction_bound(sigma))
    below_the_bound(row, given)
    assert row["success"] > 0.05


def test_one_of_several_records_is_not_what_a_users_bound_is_about():
    given = cell("prior-aware", noisy(unit="user"), "informed", clients=2)
    with pytest.raises(InputError, match="`batch_size` 1"):
        measure(given, scene_of(2, 2))
    assert measure(cell("prior-aware", noisy(unit="user"), "informed", batch_size=1), scene_of(1, 1))


def test_every_clients_noise_of_clipping_and_noise_is_on_the_sum():
    given = outsider(part("clip+noise", noise_std=0.3, max_grad_norm=C), batch_size=2)
    sums = releases(given, 60)
    assert float((sums - sums.mean(0)).std()) == pytest.approx(0.3 * 2 * 2, rel=0.03)
    assert guarantee_of(given).noise_multiplier == pytest.approx(0.3 * 2 * 2 / C)


@pytest.mark.parametrize("name", ["prune", "dp+prune", "sign", "clip+topk", "local-dp"])
def test_what_does_not_add_up_is_refused(name):
    with pytest.raises(InputError, match=r"^\S+ changes each client's gradient by itself.*`clients`\.$"):
        parts.defence_of(cell("dlg", name, clients=2))
    assert parts.defence_of(cell("dlg", name)).stages


@pytest.mark.parametrize("source", ["exact", "recovered"])
def test_statistics_of_one_clients_batch_are_refused(source):
    given = cell("dlg", bn_stats=source, clients=2, model="resnet20", norm="frozen-bn")
    with pytest.raises(InputError, match="one client's batch"):
        aggregation.check(given, scene_of(2, 2))


def test_batch_norm_that_ties_images_together_is_refused():
    scene = scene_of(2, 2)
    tied = torch.nn.Sequential(torch.nn.BatchNorm2d(3), scene.victim.model).train()
    scene = replace(scene, victim=replace(scene.victim, model=tied))
    with pytest.raises(InputError, match=r"\.eval\(\)"):
        aggregation.check(cell("dlg", clients=2), scene)
    aggregation.check(cell("dlg"), scene)


def test_rows_are_of_the_attacked_client():
    result = run_cell(cell(part("dlg", iterations=1), "clip", clients=3))
    assert len(result.rows) == len(result.images) == len(result.originals) == 2
    assert [row["original_index"] for row in result.rows] == list(prepare(cell().batch).indices)
    assert {row["clients"] for row in result.rows} == {3}
    assert 0 < sum(row["image_grad_share"] for row in result.rows) < 1


def test_others_images_are_neither_known_nor_decoys():
    scene = prepare(cell(clients=3).batch)
    assert len(scene.images) == 6
    others = {image.numpy().tobytes() for image in scene.images}
    for images, _ in (scene.others, scene.gallery):
        assert len(images)
        assert not others & {image.numpy().tobytes() for image in images}


def test_a_plan_names_who_adds_the_noise_only_where_there_are_several():
    assert "noise" not in columns.shown(cell("dlg", "dp"))
    assert columns.shown(cell("dlg", "dp", clients=2))["noise"] == "distributed"
    assert "noise" not in columns.shown(cell("dlg", "clip", clients=2))


def test_one_client_is_the_cell_of_old():
    """Keys that version 0.2 gave: clients, unit and noise at their defaults do not count."""
    assert cell(part("dlg", iterations=3), dp(8.0)).key() == OLD["dp"]
    assert cell(part("dlg", iterations=3)).key() == OLD["none"]
    assert len({cell(clients=n).key() for n in (1, 2)}) == 2

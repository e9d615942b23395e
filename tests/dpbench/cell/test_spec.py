"""What tells two cells apart, and which of their random streams are the same on purpose."""

from __future__ import annotations

from dataclasses import fields, make_dataclass, replace
from itertools import combinations

import pytest
import torch

from dpbench.cell import spec
from dpbench.cell.floors import Floor
from dpbench.cell.spec import BatchSpec, Cell, Runtime, Told
from tests.helpers.cells import cell, dp, part

CHANGES = [
    {"attack": "idlg"},
    {"attack": part("dlg", iterations=5)},
    {"defence": "clip"},
    {"defence": dp(8.0)},
    {"threat": part("informed", trials=7)},
    {"floor": Floor.NOISE_GRADIENT},
    {"attack_seed": 1},
    {"batch_seed": 1},
    {"batch_size": 3},
    {"clients": 2},
    {"label_draw": "random"},
    {"logit_scale": 0.5},
    {"trainable": "head"},
    {"expected": 256},
    {"data": "imagenet-samples"},
    {"image_size": 16},
    {"images_digest": "other"},
    {"model": "lenet"},
    {"norm": "gn"},
    {"victim": "early"},
    {"weights": "own.pt"},
    {"weights_digest": "other"},
    {"labels": "inferred"},
    {"bn_stats": "exact"},
    {"generator": "cifar10"},
    {"generator_digest": "other"},
    {"device": "cuda"},
    {"engine": "eager"},
    {"lpips_net": "alex"},
    {"version": "1"},
    {"code": "other"},
]


def test_every_field_counts_and_no_two_cells_share_a_key():
    keys = [cell().key(), *(cell(**change).key() for change in CHANGES)]
    assert len(set(keys)) == len(keys)
    changed = {name for change in CHANGES for name in change}
    own = {each.name for kind in (Cell, BatchSpec, Told, Runtime) for each in fields(kind)}
    assert own - {"batch", "told", "runtime", "plugins", "tuned"} == changed
    assert all(len(key) == 16 and set(key) <= set("0123456789abcdef") for key in keys)


def test_plugins_decide_nothing():
    assert cell(plugins=("a.py",)).key() == cell().key()


@pytest.mark.parametrize("kind", [Cell, BatchSpec, Told, Runtime])
def test_a_new_field_with_a_default_leaves_old_keys_as_they_are(kind):
    """And counts as soon as it differs from the default."""
    old = cell(dp(8.0), labels="inferred", lpips_net="alex")
    place = {BatchSpec: "batch", Told: "told", Runtime: "runtime"}.get(kind)
    before = getattr(old, place) if place else old
    newer = make_dataclass("Newer", [("fresh", float, 1.0)], bases=(kind,), frozen=True, kw_only=True)
    given = {each.name: getattr(before, each.name) for each in fields(before)}
    same, other = newer(**given), newer(**given, fresh=2.0)
    cells = [replace(old, **{place: each}) if place else each for each in (same, other)]
    assert cells[0].key() == old.key() != cells[1].key()


def test_a_new_parameter_of_a_part_leaves_old_keys_as_they_are():
    """A part holds what differs from its defaults, so one that is not given adds nothing."""
    assert part("dlg").parameters == ()
    assert cell(part("dlg", fresh=2)).key() != cell("dlg").key()


@pytest.mark.parametrize(
    "change",
    [
        lambda one: {"defence": part("dp", eps=one)},
        lambda one: {"defence": part("dp", max_grad_norm=3 * one)},
        lambda one: {"logit_scale": 2 * one},
        lambda one: {"threat": part("informed", inclusion=one)},
    ],
)
def test_one_and_one_point_nought_are_one_key(change):
    found = []
    for one in (1, 1.0, 1.5):
        spec._digest.cache_clear()  # equal parts are one entry there
        found.append(cell(**change(one)).key())
    assert found[0] == found[1] != found[2]


def test_the_key_does_not_depend_on_the_process():
    """Seeds and file names must be those of the next run: nothing of Python's own hashes is in them."""
    assert cell("dlg").key() == "ffa260495a092926"
    assert cell("dlg").release_seed() == 1729445323
    assert cell("dlg").search_seed() == 2047096617


PAIRED = [
    {"attack": "idlg"},
    {"attack": part("dlg", iterations=9)},
    {"labels": "inferred"},
    {"bn_stats": "exact"},
    {"generator": "cifar10"},
    {"threat": "malicious-linear"},
    {"threat": part("informed", inclusion=0.5, trials=3, candidates=5)},
    {"device": "cuda"},
    {"code": "other"},
    {"version": "1"},
]
INDEPENDENT = [
    {"defence": dp(2.0)},
    {"defence": dp(1.0, max_grad_norm=0.5)},
    {"defence": dp(1.0, delta=1e-6)},
    {"defence": part("dp+prune", eps=1.0, eps_scope="release")},
    {"defence": part("noise")},
    {"batch_seed": 1},
    {"batch_size": 3},
    {"clients": 2},
    {"data": "imagenet-samples"},
    {"victim": "early"},
    {"logit_scale": 0.5},
    {"trainable": "head"},
    {"attack_seed": 1},
    {"threat": part("honest", releases=2)},
]


def noise_of(seed: int) -> torch.Tensor:
    return torch.randn(20_000, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def correlated(one: torch.Tensor, two: torch.Tensor) -> bool:
    """Whether two streams of standard normal numbers have a correlation beyond 5 standard errors."""
    return abs(float((one * two).mean())) > 5 / len(one) ** 0.5


@pytest.mark.parametrize("change", PAIRED, ids=str)
def test_all_attackers_meet_one_release(change):
    usual = cell(defence=dp(1.0))
    assert cell(**{"defence": dp(1.0)} | change).release_seed() == usual.release_seed()
    assert usual.release_seed(1) != usual.release_seed()


def test_releases_that_are_not_paired_are_independent():
    usual = cell(defence=dp(1.0))
    seeds = [usual.release_seed(trial) for trial in range(4)]
    seeds += [cell(**{"defence": dp(1.0)} | change).release_seed() for change in INDEPENDENT]
    streams = [noise_of(seed) for seed in seeds]
    assert correlated(streams[0], noise_of(seeds[0]))
    assert not any(correlated(one, two) for one, two in combinations(streams, 2))


def test_searches_start_alike_under_every_defence():
    usual = cell()
    for change in ({"defence": dp(1.0)}, {"labels": "inferred"}, {"attack": part("dlg", iterations=9)}):
        assert cell(**change).search_seed() == usual.search_seed()
    others = [{"attack": "idlg"}, {"attack_seed": 1}, {"batch_seed": 1}, {"attack": None}]
    seeds = [usual.search_seed(), *(cell(**change).search_seed() for change in others)]
    assert len(set(seeds)) == len(seeds)


def test_other_seeds_are_of_the_batch_and_the_attack_seed():
    usual = cell()
    for change in ({"defence": dp(1.0)}, {"attack": "idlg"}, {"threat": "informed"}, {"device": "cuda"}):
        assert cell(**change).seed("candidates") == usual.seed("candidates")
    seeds = [usual.seed("candidates"), usual.seed("inclusion"), usual.seed("inclusion", 0)]
    seeds += [usual.seed("inclusion", 1), cell(attack_seed=1).seed("candidates")]
    seeds += [cell(batch_seed=1).seed("candidates")]
    assert len(set(seeds)) == len(seeds)


def test_no_two_purposes_of_a_cell_share_a_stream():
    usual = cell(defence=dp(1.0))
    seeds = [usual.search_seed(), *(usual.release_seed(trial) for trial in range(8))]
    seeds += [usual.seed("candidates"), usual.seed("noise floor", "dlg")]
    seeds += [usual.seed("inclusion", trial) for trial in range(8)]
    streams = [noise_of(seed) for seed in seeds]
    assert not any(correlated(one, two) for one, two in combinations(streams, 2))


def test_the_coins_do_not_give_away_who_is_in_a_release():
    """Version 0.1 drew them from the noise's own stream: the first number of the noise told the coin."""
    usual, chance, first, present = cell(defence=dp(1.0)), 0.1, [], []
    for trial in range(2000):
        coins = torch.Generator().manual_seed(usual.seed("inclusion", trial))
        present.append(float(torch.rand(1, generator=coins) < chance))
        noise = torch.Generator().manual_seed(usual.release_seed(4 * trial + 1))
        first.append(torch.randn(16, generator=noise, dtype=torch.float64))
    coin, noise = torch.tensor(present, dtype=torch.float64), torch.stack(first)
    assert abs(float(coin.mean()) - chance) < 5 * (chance * (1 - chance) / 2000) ** 0.5
    coin = (coin - coin.mean()) / coin.std()
    for values in (noise, noise.square() - 1):
        found = (coin[:, None] * (values - values.mean(0)) / values.std(0)).mean(0)
        assert float(found.abs().max()) < 5 / 2000**0.5


def test_a_seed_has_a_known_purpose():
    with pytest.raises(ValueError, match="Unknown purpose"):
        cell().seed("whatever")

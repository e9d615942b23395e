"""From names to parts, and which releases carry a guarantee."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from attacks.prior_aware import flat
from dpbench import privacy
from dpbench.cell import columns, parts
from dpbench.protocol import InputError
from tests.helpers.cells import cell, dp, part, small_scene


def guarantee(defence, **changes):
    given = cell("dlg", defence, **changes)
    return parts.guarantee_of(given, parts.defence_of(given))


@pytest.mark.parametrize("name", ["clip+noise", "clip+noise+prune"])
@pytest.mark.parametrize("batch_size", [1, 4])
@pytest.mark.parametrize("max_grad_norm", [1.0, 0.5])
def test_clipping_and_noise_are_the_gaussian_mechanism(name, batch_size, max_grad_norm):
    given = part(name, noise_std=0.5, max_grad_norm=max_grad_norm, delta=1e-6, eps_scope="release")
    found = guarantee(given, batch_size=batch_size)
    sigma = 0.5 * batch_size / max_grad_norm
    assert found.noise_multiplier == sigma
    assert found.max_grad_norm == max_grad_norm
    assert found.delta == 1e-6
    assert found.eps_release == pytest.approx(privacy.epsilon(sigma, 1e-6), rel=1e-9)
    same = guarantee(
        dp(None, noise_multiplier=sigma, max_grad_norm=max_grad_norm, delta=1e-6), batch_size=batch_size
    )
    assert found == same


def test_sigma_of_clipping_and_noise_is_that_of_the_release():
    """The sum of clipped gradients has noise of standard deviation sigma C, measured."""
    given, scene = part("clip+noise", noise_std=0.5, max_grad_norm=0.1), small_scene(4)
    made = cell("dlg", given, batch_size=4)
    chain = parts.defence_of(made)
    releases = chain.releases(
        scene.victim.model, F.cross_entropy, scene.images, scene.labels, seed=0, count=20
    )
    sums = torch.stack([flat(release.gradients) for release in releases]) * 4
    noise = float((sums - sums.mean(0)).std() * (20 / 19) ** 0.5)
    found = parts.guarantee_of(made, chain)
    assert noise == pytest.approx(found.noise_multiplier * found.max_grad_norm, rel=0.03)


@pytest.mark.parametrize("name", ["dp", "clip+noise"])
def test_noise_on_the_attacked_mean_is_that_of_the_sum_over_the_attacked_batch(name):
    """The attacker knows the rest of the training batch and subtracts it: sigma C stays, the divisor is B."""
    deviations = {}
    for size in (1, 4):
        scene = small_scene(size)
        noise_std = {} if name == "dp" else {"noise_std": 0.8 / size}
        made = cell("dlg", part(name, max_grad_norm=0.5, **noise_std), batch_size=size)
        chain = parts.defence_of(made)
        releases = chain.releases(
            scene.victim.model, F.cross_entropy, scene.images, scene.labels, seed=0, count=20
        )
        means = torch.stack([flat(release.gradients) for release in releases])
        found = parts.guarantee_of(made, chain)
        assert (found.sample_rate, found.steps) == (256 / 50_000, 1954)
        deviations[size] = float((means - means.mean(0)).std() * (20 / 19) ** 0.5)
        assert deviations[size] == pytest.approx(found.noise_multiplier * 0.5 / size, rel=0.03)
    assert deviations[1] == pytest.approx(4 * deviations[4], rel=0.05)


def test_several_releases_spend_more():
    one, three = (
        guarantee(part("clip+noise", noise_std=0.5), threat=part("honest", releases=n)) for n in (1, 3)
    )
    assert three.eps_release > one.eps_release
    assert (one.releases, three.releases) == (1, 3)


@pytest.mark.parametrize(
    "defence",
    [
        "none",
        "clip",
        "prune",
        "clip+prune",
        part("noise", noise_std=10.0),
        part("noise+prune", noise_std=10.0),
        part("clip+prune+noise", noise_std=10.0),
        part("clip+noise", noise_std=0.0),
        part("clip+noise+prune", noise_std=0.0),
    ],
)
def test_no_guarantee_without_noise_on_clipped_gradients(defence):
    assert guarantee(defence) is None


@pytest.mark.parametrize("defence", [dp(8.0), part("dp+prune", eps=8.0), part("clip+noise", noise_std=0.5)])
def test_statistics_of_the_batch_void_every_guarantee(defence):
    for source in ("exact", "recovered"):
        assert guarantee(defence, bn_stats=source) is None
    for source in ("running", "none"):
        assert guarantee(defence, bn_stats=source) is not None


def test_a_budget_goes_to_the_stage_that_takes_a_guarantee():
    given = cell("dlg", part("dp+prune", eps=8.0, eps_scope="release", prune_ratio=0.5))
    chain = parts.defence_of(given)
    assert chain.name == "dp+prune"
    assert chain.stages[0].noise_multiplier == pytest.approx(0.6002, abs=1e-3)
    assert chain.stages[1].prune_ratio == 0.5
    assert parts.guarantee_of(given, chain) == chain.guarantee


def test_a_given_noise_takes_the_place_of_a_budget():
    for given in (dp(None, noise_multiplier=0.6), part("dp", eps=None, noise_multiplier=0.6)):
        assert guarantee(given).noise_multiplier == 0.6


def test_parameters_of_a_defence_and_its_budget():
    assert set(parts.defence_parameters("none")) == set()
    assert "eps" in parts.defence_parameters("dp+prune")
    assert "delta" in parts.defence_parameters("clip+noise")
    assert "eps" not in parts.defence_parameters("clip+noise")
    assert "delta" not in parts.defence_parameters("noise")
    with pytest.raises(InputError, match="Unknown defen"):
        parts.defence_parameters("nothing")


def test_the_attack_takes_what_is_its_own():
    told = parts.attack_of(cell(part("gradinversion", matching="layer-l2", iterations=7), engine="eager"))
    assert (told.matching, told.iterations, told.engine) == ("layer-l2", 7, "eager")
    assert told.resolved().matching == "layer-l2"
    assert parts.attack_of(cell("gradinversion")).resolved().matching == "cosine"
    assert parts.attack_of(cell("prior-aware", "noise", part("informed", inclusion=0.3))).inclusion == 0.3
    with pytest.raises(InputError, match="Unknown attack"):
        parts.attack_of(cell("nothing"))


def test_a_floor_takes_the_attack_that_it_is_of():
    given = cell(part("dlg", iterations=7), floor="noise-gradient")
    assert parts.attack_of(given).iterations == 7


def test_facts():
    facts = parts.facts(dp(1.0), "inferred", "latent-projection")
    assert facts.pop("adapts")({}) is False
    assert [facts["local"]({"local_epochs": epochs}) for epochs in (None, 1)] == [False, True]
    assert facts.pop("local")({}) is False
    assert facts == {
        "defended": True,
        "repeatable": True,
        "eps_scope": "release",
        "labels": "inferred",
        "aggregated": False,
        "several": False,
        "generator": True,
    }
    facts = parts.facts(part("clip+prune"), "known", None)
    assert (facts["defended"], facts["repeatable"], facts["generator"]) == (True, False, False)
    assert facts["eps_scope"] == "training"
    assert not parts.facts(part("none"), "known", "dlg")["defended"]


def test_an_attack_that_contradicts_its_threat_model_is_refused():
    def made(own, threat):
        return parts.attack_of(cell(part("prior-aware", **own), "none", part("informed", **threat)))

    assert made({}, {"inclusion": 0.5}).inclusion == 0.5
    assert made({"inclusion": 0.5}, {"inclusion": 0.5}).inclusion == 0.5
    said = "`inclusion` is 0.3 in the attack prior-aware and 1.0 in the threat model informed: give both"
    with pytest.raises(InputError, match=said):
        made({"inclusion": 0.3}, {})


@pytest.mark.parametrize(
    ("attack", "defence", "adapts"),
    [
        (part("inverting-gradients"), "clip", True),  # each image's factor
        (part("inverting-gradients", preset="paper"), "clip", False),  # the cosine sees no scale
        (part("inverting-gradients"), "clip+prune", True),
        (part("inverting-gradients"), "prune+noise", True),  # the noise says what the prior weighs
        (part("inverting-gradients", prior_weight=0.0), "prune+noise", True),  # small entries do not count
        (part("inverting-gradients"), "quantize", True),
        (part("inverting-gradients", preset="paper"), "prune+noise", False),  # the zeros are gone
        (part("inverting-gradients", preset="paper"), "clip+prune", True),
        (part("dlg"), "clip", True),
        (part("dlg"), "none", False),
        (part("gradinversion"), "clip", False),
        (part("gradinversion", matching="layer-l2"), "clip", True),
        (part("gradinversion", preset="paper"), "clip", True),
        (part("gradinversion", preset="paper", matching="cosine"), "clip", False),
        (part("analytic"), "noise", True),
        (part("analytic"), "prune", False),
    ],
)
def test_a_row_is_adaptive_only_where_the_attack_has_an_answer_to_the_defence(attack, defence, adapts):
    assert columns.shown(cell(attack, defence)).get("adaptive", False) is adapts

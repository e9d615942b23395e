"""Chains, parameters, and the victim that must come out as it went in."""

from __future__ import annotations

import copy
from dataclasses import MISSING

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import defenses
from defenses.base import defenses_registry
from dpbench.privacy.budget import Budget
from dpbench.protocol import InputError, parameter, parameters
from dpbench.victim import networks as models

torch.set_num_threads(1)
IMAGES = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 4, 9])
PARAMETERS = {
    "clip": {"max_grad_norm": 0.5},
    "dp": {"noise_multiplier": 1.0, "max_grad_norm": 0.5},
    "noise": {"noise_std": 0.1},
    "prune": {"prune_ratio": 0.9, "prune_scope": "global"},
    "none": {},
}


@pytest.fixture(scope="module")
def victim():
    return models.build("convnet", norm="frozen-bn")


def release(victim, name, seed=0, **parameters):
    chain = defenses.create(name, **parameters)
    return chain.release(victim, F.cross_entropy, IMAGES, LABELS, seed=seed)


def test_none_is_the_plain_gradient(victim):
    plain = release(victim, "none")
    expected = torch.autograd.grad(F.cross_entropy(victim(IMAGES), LABELS), list(victim.parameters()))
    torch.testing.assert_close(plain.gradients, expected)
    assert plain.names == tuple(name for name, _ in victim.named_parameters())
    assert (plain.batch_size, plain.defense, plain.guarantee) == (3, (), None)
    assert not any(g.requires_grad for g in plain.gradients)


def test_stages_apply_from_left_to_right(victim):
    both = {**PARAMETERS["noise"], "prune_ratio": 0.9}
    noise_last, prune_last = (release(victim, n, **both) for n in ("prune+noise", "noise+prune"))
    zeros = [sum(int((g == 0).sum()) for g in r.gradients) for r in (noise_last, prune_last)]
    size = sum(p.numel() for p in victim.parameters())
    assert zeros[0] < 0.01 * size < 0.89 * size < zeros[1]
    assert [s.name for s in prune_last.defense] == ["noise", "prune"]


def test_a_chain_is_its_stages_one_after_the_other(victim):
    chained = release(victim, "clip+prune", **PARAMETERS["clip"], **PARAMETERS["prune"])
    clipped = release(victim, "clip", **PARAMETERS["clip"])
    (prune,) = defenses.create("prune", **PARAMETERS["prune"]).stages
    expected = prune.process(clipped.gradients, torch.Generator())
    assert all(torch.equal(a, b) for a, b in zip(chained.gradients, expected, strict=True))


def test_the_public_description_holds_every_parameter_and_nothing_else(victim):
    described = release(victim, "dp+prune", **PARAMETERS["dp"], **PARAMETERS["prune"]).defense
    assert [dict(s.parameters) for s in described] == [
        PARAMETERS["dp"] | {"unit": "record"},
        PARAMETERS["prune"],
    ]


@pytest.mark.parametrize("name", ["prune+clip", "noise+dp", "clip+dp", "dp+prune+clip"])
def test_what_needs_each_samples_gradient_comes_first(name):
    parameters = {k: v for part in name.split("+") for k, v in PARAMETERS[part].items()}
    with pytest.raises(InputError, match="can only come first"):
        defenses.create(name, **parameters)


def test_unknown_names_list_the_known_ones():
    with pytest.raises(
        InputError, match=r"Unknown defense 'clop' \(did you mean 'clip'\?\); known: none, censor, clip, dp, "
    ):
        defenses.create("clop+prune", prune_ratio=0.5)
    with pytest.raises(InputError, match="leave it out"):
        defenses.create("none+prune", prune_ratio=0.5)
    assert set(defenses.names()) >= {"none", "dp", "clip", "noise", "prune"}


def test_parameters_nobody_takes_and_missing_ones_are_errors():
    with pytest.raises(
        InputError, match="does not take `prune_ratio`: it takes `max_grad_norm`, `unit`, `noise_std`"
    ):
        defenses.create("clip+noise", prune_ratio=0.5)
    with pytest.raises(InputError, match="does not take `prune_ratio`: it takes no parameters"):
        defenses.create("none", prune_ratio=0.5)
    with pytest.raises(InputError, match="dp needs a value of `noise_multiplier`"):
        defenses.create("dp", max_grad_norm=1.0)


@pytest.mark.parametrize("name", parameters(Budget))
def test_a_budget_is_the_runs_and_not_the_defences(name):
    said = rf"^Defense dp does not take `{name}`: give `noise_multiplier` here, or .*, {name}=...\)\.$"
    with pytest.raises(InputError, match=said):
        defenses.create("dp", **{name: 8})


def test_a_guarantee_is_not_offered():
    with pytest.raises(InputError) as refused:
        defenses.create("dp", colour=1, noise_multiplier=1.0)
    assert "guarantee" not in str(refused.value)


def test_a_third_partys_parameters_are_declared_and_its_required_one_is_asked_for(monkeypatch):
    monkeypatch.setattr(defenses_registry, "_items", dict(defenses_registry))

    @defenses.defense("scaled")
    class Scaled(defenses.PostProcessor):
        gradient_scale: float = parameter(MISSING, "what every entry is multiplied by", above=0)

        def process(self, gradients, generator):
            return tuple(self.gradient_scale * g for g in gradients)

    with pytest.raises(InputError, match="scaled needs a value of `gradient_scale`"):
        defenses.create("clip+scaled")
    with pytest.raises(InputError, match="`gradient_scale` must be above 0, not -1"):
        defenses.create("scaled", gradient_scale=-1)
    (stage,) = defenses.create("scaled", gradient_scale=2).stages
    assert dict(stage.stage().parameters) == {"gradient_scale": 2.0}


def test_a_chain_is_made_again_from_its_name_and_what_was_changed():
    chain = defenses.create("dp+prune", noise_multiplier=1.0, prune_ratio=0.5)
    assert (chain.name, chain.changed()) == ("dp+prune", {"noise_multiplier": 1.0, "prune_ratio": 0.5})
    assert defenses.create(chain.name, **chain.changed()) == chain
    assert (defenses.create("none").name, defenses.create("none").changed()) == ("none", {})
    twice = defenses.Chain(
        (defenses.create("prune").stages[0], *defenses.create("prune", prune_ratio=0.5).stages)
    )
    with pytest.raises(InputError, match="differ in `prune_ratio`"):
        twice.changed()


def test_a_chain_is_repeatable_where_a_stage_draws_noise():
    assert [defenses.create(n).repeatable for n in ("none", "clip+prune", "prune+noise")] == [
        False,
        False,
        True,
    ]
    assert defenses.create("dp+prune", noise_multiplier=1.0).repeatable


def test_the_classes_of_the_stages_are_to_be_had_without_parameters():
    assert [stage.name for stage in defenses.stages("dp+prune")] == ["dp", "prune"]
    assert defenses.stages("none") == ()
    for name, match in (
        ("clop", "Unknown defense"),
        ("prune+dp", "only come first"),
        ("none+dp", "leave it out"),
    ):
        with pytest.raises(InputError, match=match):
            defenses.stages(name)


def test_a_name_is_registered_once():
    with pytest.raises(ValueError, match="registered already"):
        defenses.defense("prune")(type("Again", (defenses.PostProcessor,), {}))
    assert defenses_registry["prune"].__name__ == "Prune"


@pytest.mark.parametrize("name", PARAMETERS)
@pytest.mark.parametrize("training", [False, True])
def test_the_victim_is_left_as_it_was(name, training):
    model = nn.Sequential(models.build("convnet", norm="gn"), nn.Dropout(0.5)).train(training)
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    before, modes = copy.deepcopy(model.state_dict()), [m.training for m in model.modules()]
    attributes = {id(p): set(vars(p)) for p in model.parameters()}
    images, labels, state = IMAGES.clone(), LABELS.clone(), torch.get_rng_state()
    release(model, name, **PARAMETERS[name])
    assert [m.training for m in model.modules()] == modes
    assert not any(
        m._forward_hooks or m._backward_hooks or hasattr(m, "activations") for m in model.modules()
    )
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(bool((p.grad == 1).all()) and set(vars(p)) == attributes[id(p)] for p in model.parameters())
    assert torch.equal(images, IMAGES)
    assert torch.equal(labels, LABELS)
    assert torch.equal(state, torch.get_rng_state())


def test_a_release_on_the_cpu_leaves_the_random_state_of_graphics_cards(victim, monkeypatch):
    seeded = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    torch.manual_seed(0)
    assert len(seeded) == 1  # what the release must not do
    release(victim, "noise", **PARAMETERS["noise"])
    assert len(seeded) == 1


@pytest.mark.parametrize("name", ["clip", "clip+prune"])
def test_every_defence_sees_the_victim_with_dropout_off(name):
    class ByHand(nn.Module):
        def forward(self, x):
            return nn.functional.dropout(x, 0.5, self.training)

    layers = (nn.Flatten(), nn.Linear(3072, 8), nn.Dropout(0.5), nn.Tanh(), ByHand(), nn.Linear(8, 10))
    model = nn.Sequential(*layers).train()
    parts = {"prune_ratio": 0.0} if "prune" in name else {}
    training, clipped = release(model, "none"), release(model, name, max_grad_norm=1e6, **parts)
    evaluated = release(copy.deepcopy(model).eval(), "none")
    torch.testing.assert_close(training.gradients, evaluated.gradients, rtol=0, atol=0)
    torch.testing.assert_close(clipped.gradients, evaluated.gradients, rtol=1e-4, atol=1e-7)
    assert model.training


def test_undefended_batch_norm_stays_in_training_mode():
    model = models.build("convnet", norm="bn")
    training, evaluated = release(model.train(), "none"), release(copy.deepcopy(model).eval(), "none")
    assert not torch.allclose(training.gradients[0], evaluated.gradients[0], rtol=0.1)


def test_undefended_training_mode_batch_norm_keeps_its_statistics():
    model = models.build("convnet", norm="bn").train()
    before = model.norm1.running_mean.clone()
    release(model, "none")
    assert torch.equal(model.norm1.running_mean, before)


@pytest.mark.parametrize("name", PARAMETERS)
def test_frozen_parameters_are_not_released(name):
    model = models.build("convnet")
    model.conv1.requires_grad_(False)
    released = release(model, name, **PARAMETERS[name])
    assert not any(n.startswith("conv1") for n in released.names)
    assert len(released.gradients) == len(released.names) == 6


@pytest.mark.parametrize("name", ["none", "clip", "dp", "noise", "dp+prune"])
def test_many_releases_begin_with_the_single_one_and_draw_new_noise(name):
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 10))
    chain = defenses.create(name, **{k: v for part in name.split("+") for k, v in PARAMETERS[part].items()})
    single = chain.release(model, F.cross_entropy, IMAGES[:, :, :2, :2], LABELS, seed=4)
    many = chain.releases(model, F.cross_entropy, IMAGES[:, :, :2, :2], LABELS, seed=4, count=3)
    for a, b in zip(single.gradients, many[0].gradients, strict=True):
        torch.testing.assert_close(a, b)
    assert len(many) == 3
    assert many[1].defense == single.defense
    assert torch.equal(many[0].gradients[0], many[1].gradients[0]) == (name in ("none", "clip"))

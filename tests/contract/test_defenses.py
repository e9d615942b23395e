"""What every registered defence, and some chains, have to do; a new one is tested by registering it.

A required parameter of a defence gets the smallest round number in its range.
"""

from __future__ import annotations

import copy
import pickle
from dataclasses import MISSING, fields

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import defenses
from defenses import Aggregator
from dpbench.protocol import Guarantee, InputError, parameters

torch.set_num_threads(1)
CHAINS = (
    "clip+prune",
    "dp+prune",
    "dp+noise",
    "noise+prune",
    "prune+noise",
    "prune+prune",
    "clip+noise+prune",
    "clip+topk",
    "quantize+topk",
)
NAMES = (*defenses.names(), *CHAINS)
STAGES = [name for name in defenses.names() if name != "none"]
CLIPPING = [name for name in STAGES if "max_grad_norm" in parameters(*defenses.stages(name))]
COARSE = {"quantize", "outpost"}
"""Their random draws may leave a small tensor as it was."""
SIZES = (3, 11)
"""Of batches: so few that each image's gradient is taken alone, and so many that they are taken together."""


def in_range(declared):
    """A value that a parameter may have: its default, or a number in its range, or its first choice."""
    if declared.default is not MISSING:
        return declared.default
    if declared.choices:
        return declared.choices[0]
    if declared.kind in (int, float):
        for value in (1, 0.5, 2, 100, 0, -1):
            try:
                return declared.checked(declared.kind(value))
            except InputError:
                continue
    return declared.kind()


def required(name):
    return {
        key: in_range(declared)
        for stage in defenses.stages(name)
        for key, declared in parameters(stage).items()
        if declared.default is MISSING
    }


def created(name, **given):
    return defenses.create(name, **required(name) | given)


def batch(size):
    generator = torch.Generator().manual_seed(0)
    return torch.rand(size, 3, 8, 8, generator=generator), torch.arange(size) % 5


@pytest.fixture
def victim():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.ReLU(inplace=True), nn.Flatten(), nn.Dropout(0.5)
        )
        model.append(nn.Linear(144, 5))
    return model


def released(model, name, seed=0, size=3, count=1, **given):
    images, labels = batch(size)
    return created(name, **given).releases(model, F.cross_entropy, images, labels, seed=seed, count=count)


def same(first, second):
    return all(torch.equal(a, b) for a, b in zip(first.gradients, second.gradients, strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_defaults_are_in_range_and_a_chain_can_be_made_again_and_pickled(name):
    chain = created(name)
    assert chain.name == name
    assert defenses.create(chain.name, **chain.changed()) == chain
    assert pickle.loads(pickle.dumps(chain)) == chain == copy.deepcopy(chain)
    assert hash(chain) == hash(created(name))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", NAMES)
def test_the_seed_decides_the_release_and_nothing_else_does(name, size, victim):
    torch.manual_seed(1)
    state = torch.get_rng_state()
    (first,) = released(victim, name, seed=3, size=size)
    assert torch.equal(state, torch.get_rng_state())
    torch.manual_seed(2)
    (again,) = released(victim, name, seed=3, size=size)
    assert same(first, again)


@pytest.mark.parametrize("name", NAMES)
def test_releases_of_one_batch_differ_where_the_defence_draws_noise_or_remembers(name, victim):
    chain = created(name)
    noisy = any(stage.repeatable for stage in defenses.stages(name))
    assert chain.repeatable == (noisy or any(stage.remembers for stage in defenses.stages(name)))
    first, second, third = released(victim, name, count=3)
    (other,) = released(victim, name, seed=1)
    assert same(first, other) != noisy
    for pair in ((first, second), (second, third)):
        assert same(*pair) != chain.repeatable
    for pair in ((first, second), (second, third), (first, other)):
        if noisy and not COARSE & set(name.split("+")):
            assert not any(torch.equal(a, b) for a, b in zip(*(r.gradients for r in pair), strict=True))
    assert first.defense == second.defense == third.defense


@pytest.mark.parametrize("name", NAMES)
def test_the_first_of_several_releases_is_the_one_that_is_made_alone(name, victim):
    """What a defence remembers does not outlive a call."""
    several, again = released(victim, name, count=2), released(victim, name, count=2)
    assert all(same(a, b) for a, b in zip(several, again, strict=True))
    assert same(several[0], *released(victim, name)) or len(defenses.stages(name)) > 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", NAMES)
def test_gradients_have_the_shapes_types_and_places_of_the_parameters(name, dtype, victim):
    victim[1].requires_grad_(False)
    images, labels = batch(3)
    release = created(name).release(victim.to(dtype), F.cross_entropy, images.to(dtype), labels, seed=0)
    trained = {n: p for n, p in victim.named_parameters() if p.requires_grad}
    assert release.names == tuple(trained)
    for gradient, parameter in zip(release.gradients, trained.values(), strict=True):
        assert (gradient.shape, gradient.dtype, gradient.device) == (parameter.shape, dtype, parameter.device)
        assert not gradient.requires_grad
        assert bool(gradient.isfinite().all())
    assert release.batch_size == 3
    assert [stage.name for stage in release.defense] == [s.name for s in defenses.stages(name)]
    stages = zip(release.defense, created(name).stages, strict=True)
    assert all(dict(public.parameters) == stage.values() for public, stage in stages)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_the_victim_and_the_batch_are_left_as_they_were(name, training, size, victim):
    victim.train(training)
    victim[0].weight.requires_grad_(False)
    victim.register_buffer("constant", torch.ones(1))
    for p in victim.parameters():
        p.grad = torch.ones_like(p)
    before, images, labels = copy.deepcopy(victim), *batch(size)
    modes = [(m.training, vars(m).get("inplace"), set(vars(m))) for m in victim.modules()]
    attributes = [set(vars(p)) for p in victim.parameters()]
    given = images.clone(), labels.clone()
    created(name).release(victim, F.cross_entropy, *given, seed=0)
    assert [(m.training, vars(m).get("inplace"), set(vars(m))) for m in victim.modules()] == modes
    assert not any(
        m._forward_hooks or m._forward_pre_hooks or m._backward_hooks or m._backward_pre_hooks
        for m in victim.modules()
    )
    for (key, value), (_, old) in zip(victim.state_dict().items(), before.state_dict().items(), strict=True):
        assert torch.equal(value, old), key
    flags = [p.requires_grad for p in before.parameters()]
    assert [p.requires_grad for p in victim.parameters()] == flags
    assert [set(vars(p)) for p in victim.parameters()] == attributes
    assert all(bool((p.grad == 1).all()) for p in victim.parameters())
    assert torch.equal(given[0], images)
    assert torch.equal(given[1], labels)
    assert not given[0].requires_grad


@pytest.mark.parametrize("name", NAMES)
def test_dropout_is_off_whatever_the_mode(name, victim):
    (training,), (evaluated,) = (released(victim.train(on), name) for on in (True, False))
    assert same(training, evaluated)


@pytest.mark.parametrize("name", NAMES)
def test_ambient_no_grad_changes_nothing(name, victim):
    (plain,) = released(victim, name)
    with torch.no_grad():
        (ambient,) = released(victim, name)
    assert same(plain, ambient)


@pytest.mark.parametrize("place", ["weights", "images"])
@pytest.mark.parametrize("name", NAMES)
def test_what_is_not_finite_is_refused(name, place, victim):
    images, labels = batch(3)
    (victim[5].weight.data if place == "weights" else images)[0, 0] = float("nan")
    with pytest.raises(InputError, match="not finite"):
        created(name).release(victim, F.cross_entropy, images, labels, seed=0)


@pytest.mark.parametrize("name", STAGES)
def test_parameters_outside_their_range_are_refused_by_name(name):
    (stage,) = defenses.stages(name)
    for key, declared in parameters(stage).items():
        if declared.choices:
            wrong = ["neither of them"]
        elif declared.kind in (int, float):
            edges = (declared.above, declared.below)
            wrong = [float("nan"), float("inf"), "many", True, *(edge for edge in edges if edge is not None)]
            wrong += [declared.at_least - 1] if declared.at_least is not None else []
            wrong += [declared.at_most + 1] if declared.at_most is not None else []
        else:
            wrong = [object()]
        for value in wrong:
            with pytest.raises(InputError, match=f"`{key}` must be"):
                created(name, **{key: value})


@pytest.mark.parametrize("name", NAMES)
def test_unknown_and_missing_parameters_are_refused_by_name(name):
    with pytest.raises(InputError, match="does not take `colour`"):
        created(name, colour="red")
    for key in required(name):
        with pytest.raises(InputError, match=f"needs a value of `{key}`"):
            defenses.create(name, **{k: v for k, v in required(name).items() if k != key})


@pytest.mark.parametrize("name", NAMES)
def test_there_is_a_guarantee_only_where_the_first_stage_takes_one(name, victim):
    (release,) = released(victim, name)
    assert release.guarantee is None
    first = defenses.stages(name)[:1]
    if not any(field.name == "guarantee" for stage in first for field in fields(stage)):
        with pytest.raises(InputError, match="does not take `guarantee`"):
            created(name, guarantee=None)
        return
    values = created(name).stages[0].values()
    numbers = {
        "eps": None,
        "eps_release": 1.0,
        "delta": 1e-5,
        "sample_rate": 1.0,
        "steps": 1,
        "rero_release": 0.5,
    }
    described = {"accountant": "analytic", "eps_scope": "release"}
    guarantee = Guarantee(
        **numbers,
        **described,
        noise_multiplier=values["noise_multiplier"],
        max_grad_norm=values["max_grad_norm"],
    )
    (release,) = released(victim, name, guarantee=guarantee)
    assert release.guarantee == guarantee


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", CLIPPING)
def test_an_images_part_of_the_sum_is_no_longer_than_the_clip_norm(name, size, victim):
    """Whatever noise there is, the seed makes it the same with the last image and without."""
    bound = 0.01
    images, labels = batch(size)
    chain = created(name, max_grad_norm=bound)

    def total(count):
        release = chain.release(victim, F.cross_entropy, images[:count], labels[:count], seed=0)
        return count * torch.cat([g.double().flatten() for g in release.gradients])

    whole, fewer = total(size), total(size - 1)
    assert 0.5 * bound < float((whole - fewer).norm()) <= bound * (1 + 1e-6) + 1e-6 * float(whole.norm())


@pytest.mark.parametrize("name", STAGES)
def test_aggregators_come_first_and_only_there(name):
    (stage,) = defenses.stages(name)
    after = f"noise+{name}"
    if issubclass(stage, Aggregator):
        with pytest.raises(InputError, match="only come first"):
            defenses.stages(after)
    else:
        assert len(defenses.stages(after)) == 2

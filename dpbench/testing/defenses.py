"""What every defence, alone or in a chain, has to do."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from dataclasses import fields

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import defenses
from defenses import Aggregator, Chain, Defense
from dpbench.protocol import Guarantee, parameters
from dpbench.testing.chains import SIZES, batch, created, equal, released, required, victim
from dpbench.testing.claims import claim, refused
from dpbench.testing.noise import its_noise_is_gaussian_where_it_takes_a_guarantee
from dpbench.testing.ranges import outside
from dpbench.testing.untouched import (
    given_gradients_are_left_as_they_were,
    the_victim_and_the_batch_are_left_as_they_were,
)


def is_registered(kind: type[Defense]) -> None:
    """It is known under its name."""
    claim(
        isinstance(kind, type) and issubclass(kind, Defense),
        f"{kind!r} is no subclass of defenses.PostProcessor or defenses.Aggregator.",
    )
    name = vars(kind).get("name")
    claim(
        name in defenses.names() and defenses.stages(name) == (kind,),
        f"{kind.__name__} is not registered: put @defense('its-name') above the class.",
    )


def a_chain_can_be_made_again_and_pickled(name: str) -> None:
    """Defaults are in range, and chains are values."""
    chain = created(name)
    claim(chain.name == name, f"{name} is called {chain.name} once it is made.")
    for again in (
        defenses.create(name, **required(name) | chain.changed()),
        pickle.loads(pickle.dumps(chain)),
        copy.deepcopy(chain),
    ):
        claim(
            again == chain and hash(again) == hash(chain),
            f"{name}, made again, is another: leave the class frozen, and keep nothing but parameters in it.",
        )


def the_seed_decides_the_release_and_nothing_else_does(name: str) -> None:
    """Random numbers come from the generator, and PyTorch's own state is left as it was."""
    model = victim()
    for size in SIZES:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            state = torch.get_rng_state()
            (first,) = released(model, name, seed=3, size=size)
            claim(torch.equal(state, torch.get_rng_state()), f"{name} changes PyTorch's global random state.")
            torch.manual_seed(2)
            (again,) = released(model, name, seed=3, size=size)
        claim(
            equal(first, again),
            f"{name} gives two releases for one seed: draw every random number from `generator`.",
        )


def releases_differ_where_it_draws_noise_or_remembers(name: str) -> None:
    """`repeatable` and `remembers` say the truth."""
    model, chain = victim(), created(name)
    noisy = any(stage.repeatable for stage in defenses.stages(name))
    claim(
        chain.repeatable == (noisy or any(stage.remembers for stage in defenses.stages(name))),
        f"{name}.repeatable does not follow from its stages.",
    )
    first, second, third = released(model, name, count=3)
    (other,) = released(model, name, seed=1)
    claim(
        equal(first, other) != noisy,
        f"{name} says repeatable = {noisy}, but two seeds give "
        f"{'the same' if noisy else 'different'} releases.",
    )
    for pair in ((first, second), (second, third)):
        differs = not equal(*pair)
        claim(
            differs == chain.repeatable,
            f"Releases of one batch {'differ' if differs else 'are the same'} under {name}, against what "
            "`repeatable` and `remembers` of its stages say.",
        )
    claim(
        first.defense == second.defense == third.defense,
        f"{name} describes releases of one call differently.",
    )


def what_it_remembers_does_not_outlive_a_call(name: str) -> None:
    """The first of several releases is the one that is made alone."""
    model = victim()
    several, again = released(model, name, count=2), released(model, name, count=2)
    claim(
        all(equal(a, b) for a, b in zip(several, again, strict=True)),
        f"{name} gives other releases when it is called again: keep its state in `stream`, not in the "
        "object or the module.",
    )
    claim(
        len(defenses.stages(name)) > 1 or equal(several[0], *released(model, name)),
        f"The first of several releases of {name} is not the one that is made alone.",
    )


def gradients_have_the_shapes_types_and_places_of_the_parameters(name: str) -> None:
    """In single and double precision, with frozen parameters left out."""
    for dtype in (torch.float32, torch.float64):
        model = victim().to(dtype)
        model[1].requires_grad_(False)
        images, labels = batch(3)
        chain = created(name)
        release = chain.release(model, F.cross_entropy, images.to(dtype), labels, seed=0)
        network, _ = chain.victim(model, F.cross_entropy)
        trained = {n: p for n, p in network.named_parameters() if p.requires_grad}
        claim(release.names == tuple(trained), f"{name} releases {release.names}, not {tuple(trained)}.")
        for key, gradient in zip(release.names, release.gradients, strict=True):
            have, want = (gradient.dtype, gradient.device), (dtype, trained[key].device)
            claim(have == want, f"{name} releases {have} for `{key}`, not {want}.")
            claim(not gradient.requires_grad, f"{name} releases gradients that are not detached.")
            claim(gradient.isfinite().all(), f"{name} releases numbers that are not finite.")
        claim(release.batch_size == 3, f"{name} says that the batch had {release.batch_size} images, not 3.")
        public = [(stage.name, dict(stage.parameters)) for stage in release.defense]
        expected = [(stage.name, stage.values()) for stage in chain.stages]
        claim(public == expected, f"{name} is described as {public}, not {expected}.")


def dropout_is_off_whatever_the_mode(name: str) -> None:
    """A victim in training mode gives the release of one in evaluation mode."""
    (training,), (evaluated,) = (released(victim().train(on), name) for on in (True, False))
    claim(equal(training, evaluated), f"{name} leaves dropout on where the victim is in training mode.")


def ambient_no_grad_changes_nothing(name: str) -> None:
    """Under torch.no_grad() the release is the same."""
    (plain,) = released(victim(), name)
    with torch.no_grad():
        (ambient,) = released(victim(), name)
    claim(equal(plain, ambient), f"{name} gives another release within torch.no_grad().")


def what_is_not_finite_is_refused(name: str) -> None:
    """NaN in a weight or a pixel is an InputError."""
    for place in ("weights", "images"):
        model, (images, labels) = victim(), batch(3)
        (model[5].weight.data if place == "weights" else images)[0, 0] = float("nan")
        with refused("not finite", f"{name} must refuse {place} that are not finite."):
            created(name).release(model, F.cross_entropy, images, labels, seed=0)


def parameters_outside_their_range_are_refused(name: str) -> None:
    """By an InputError that names the parameter."""
    for stage in defenses.stages(name):
        for key, declared in parameters(stage).items():
            for value in outside(declared):
                with refused(f"`{key}` must be", f"{name} must refuse {key}={value!r} and name `{key}`."):
                    created(name, **{key: value})


def unknown_and_missing_parameters_are_refused(name: str) -> None:
    """By name."""
    with refused("does not take `colour`", f"{name} must refuse an unknown parameter."):
        created(name, colour="red")
    for key in required(name):
        others = {k: v for k, v in required(name).items() if k != key}
        with refused(f"needs a value of `{key}`", f"{name} must ask for `{key}`."):
            defenses.create(name, **others)


def there_is_a_guarantee_only_where_the_first_stage_takes_one(name: str) -> None:
    """Nothing is guaranteed unasked, and what is given comes out unchanged."""
    (release,) = released(victim(), name)
    claim(release.guarantee is None, f"{name} claims a guarantee that nobody gave it.")
    first = defenses.stages(name)[:1]
    if not any(field.name == "guarantee" for stage in first for field in fields(stage)):
        with refused("does not take `guarantee`", f"{name} must refuse a guarantee."):
            created(name, guarantee=None)
        return
    values = created(name).stages[0].values()
    guarantee = Guarantee(
        eps=None,
        eps_release=1.0,
        delta=1e-5,
        noise_multiplier=values.get("noise_multiplier", 1.0),
        max_grad_norm=values.get("max_grad_norm", 1.0),
        sample_rate=1.0,
        steps=1,
        accountant="analytic",
        eps_scope="release",
        rero_release=0.5,
    )
    (release,) = released(victim(), name, guarantee=guarantee)
    claim(release.guarantee == guarantee, f"{name} changes the guarantee that it was given.")


def no_image_moves_the_sum_by_more_than_the_clip_norm(name: str) -> None:
    """Whatever noise there is, the seed makes it the same with the last image and without."""
    if len(defenses.stages(name)) != 1 or "max_grad_norm" not in parameters(*defenses.stages(name)):
        return
    bound = 0.01
    for size in SIZES:
        images, labels = batch(size)
        chain, model = created(name, max_grad_norm=bound), victim()
        whole, fewer = (_total(chain, model, images[:n], labels[:n]) for n in (size, size - 1))
        moved, rounding = float((whole - fewer).norm()), 1e-6 * float(whole.norm())
        claim(
            moved <= bound * (1 + 1e-6) + rounding,
            f"Under {name} with `max_grad_norm` {bound:g} one image of {size} moves the sum by {moved:.3g}.",
        )
        claim(
            moved > 0.5 * bound,
            f"Under {name} with `max_grad_norm` {bound:g} an image moves the sum by {moved:.3g} only: what "
            "it is clipped to is less than what is said.",
        )


def _total(chain: Chain, model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    release = chain.release(model, F.cross_entropy, images, labels, seed=0)
    return len(images) * torch.cat([g.double().flatten() for g in release.gradients])


def aggregators_come_first_and_only_there(name: str) -> None:
    """A stage that sees each sample's gradient cannot follow another."""
    for stage in defenses.stages(name):
        after = f"noise+{stage.name}"
        if issubclass(stage, Aggregator):
            with refused("only come first", f"{stage.name} works on each sample, so it must come first."):
                defenses.stages(after)
        else:
            claim(len(defenses.stages(after)) == 2, f"{stage.name} must be able to follow noise.")


Check = Callable[[str], None]
CHECKS: tuple[Check, ...] = (
    a_chain_can_be_made_again_and_pickled,
    given_gradients_are_left_as_they_were,
    gradients_have_the_shapes_types_and_places_of_the_parameters,
    the_seed_decides_the_release_and_nothing_else_does,
    releases_differ_where_it_draws_noise_or_remembers,
    what_it_remembers_does_not_outlive_a_call,
    the_victim_and_the_batch_are_left_as_they_were,
    dropout_is_off_whatever_the_mode,
    ambient_no_grad_changes_nothing,
    what_is_not_finite_is_refused,
    parameters_outside_their_range_are_refused,
    unknown_and_missing_parameters_are_refused,
    there_is_a_guarantee_only_where_the_first_stage_takes_one,
    no_image_moves_the_sum_by_more_than_the_clip_norm,
    its_noise_is_gaussian_where_it_takes_a_guarantee,
    aggregators_come_first_and_only_there,
)
"""Each takes the name of a chain."""

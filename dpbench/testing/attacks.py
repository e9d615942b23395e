"""What holds for every attack.

An attack is told what its class flags ask for: `threat_models` decides the victim, `needs` the knowledge.
"""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Callable
from dataclasses import FrozenInstanceError, replace

import torch

import attacks
from attacks import Attack
from dpbench.protocol import InputError, LocalTraining, Release, parameters
from dpbench.testing.claims import claim, refused, same
from dpbench.testing.ranges import other, outside
from dpbench.testing.scenes import CLASSES, SHAPE, noise_release, psnr, scene


def short(kind: type[Attack], iterations: int = 5) -> Attack:
    """The attack with its search cut short."""
    asked = {"iterations": iterations, "restarts": 2, "training_steps": iterations}
    return kind(**{name: value for name, value in asked.items() if name in parameters(kind)})


def some(kind: type[Attack]) -> int:
    """Images of a batch: three, or as many as the attack takes."""
    return min(3, kind.most_images or 3)


def is_registered(kind: type[Attack]) -> None:
    """It is known under its name, and every parameter has a default."""
    claim(
        isinstance(kind, type) and issubclass(kind, Attack),
        f"{kind!r} is no subclass of attacks.base.Attack.",
    )
    name = vars(kind).get("name")
    claim(
        name in attacks.names() and attacks.kind(name) is kind,
        f"{kind.__name__} is not registered: put @attack('its-name') above the class.",
    )
    try:
        made = kind()
    except (InputError, TypeError) as error:
        raise AssertionError(
            f"{name} cannot be made without arguments: give every parameter a default in its range. {error}"
        ) from error
    defaults = {each: declared.default for each, declared in parameters(kind).items()}
    claim(made.values() == defaults, f"{name} changes its own defaults: {made.values()}, not {defaults}.")


def answers_are_well_formed(kind: type[Attack]) -> None:
    """Shapes, types, ranges and what progress is told, with known and unknown labels."""
    for batch, known in ((1, True), (some(kind), True), (some(kind), False)):
        _is_well_formed(kind, batch, known)


def _is_well_formed(kind: type[Attack], batch: int, known: bool) -> None:
    given, attack, calls = scene(kind, batch, known), short(kind), []
    found = attack(given.release, given.knowledge, seed=0, progress=lambda *call: calls.append(call))
    expected = 1 if "candidates" in kind.needs else batch  # it rebuilds the one sample it does not know
    name = kind.name
    for what in ("images", "start"):
        images = getattr(found, what)
        claim(
            images.shape == (expected, *SHAPE) and images.dtype == torch.float32,
            f"`{what}` of {name} must be float32 {(expected, *SHAPE)}, not {images.dtype} "
            f"{(*images.shape,)}.",
        )
        # False for NaN
        claim(images.min() >= 0 and images.max() <= 1, f"`{what}` of {name} must lie in [0, 1].")
    claim(
        found.labels.shape == (expected,)
        and found.labels.dtype == torch.int64
        and set(found.labels.tolist()) <= set(range(CLASSES)),
        f"`labels` of {name} must be int64 [{expected}] in [0, {CLASSES}), not {found.labels}.",
    )
    claim(
        found.label_source in ("known", "inferred", "joint"),
        f"`label_source` of {name} must be known, inferred or joint, not {found.label_source!r}.",
    )
    claim(
        found.label_source != "known" or given.knowledge.labels is not None,
        f"{name} says that the labels were known, but it was told none.",
    )
    most = attack.evaluations()
    claim(
        0 <= found.iterations <= most,
        f"`iterations` of {name} must lie in [0, {most}] (`evaluations()`), not be {found.iterations}.",
    )
    claim(found.seconds >= 0, f"`seconds` of {name} must not be below 0: take `task.seconds()`.")
    wrong = [call for call in calls if not 0 <= call[0] <= call[1] == most]
    claim(
        not wrong,
        f"{name} tells progress {wrong[:1]}: it must be (done, {most}, objective), done up to {most}.",
    )


def the_seed_decides_everything(kind: type[Attack]) -> None:
    """Random numbers come from the task, so that the same seed gives the same answer."""
    given, attack, answers = scene(kind, some(kind), known=False), short(kind), []
    with torch.random.fork_rng(devices=[]):
        for state in (0, 1):
            torch.manual_seed(state)  # which must not matter
            answers.append(attack(given.release, given.knowledge, seed=7))
    distances = [torch.tensor([each.gradient_distance]).nan_to_num(-1.0) for each in answers]
    pairs = [[each.images, each.start, each.labels, d] for each, d in zip(answers, distances, strict=True)]
    claim(
        same(*pairs),
        f"{kind.name} gives two answers for one seed: draw every random number from `task.generator` or by "
        "`task.noise`.",
    )


def the_victim_and_the_release_stay_as_they_are(kind: type[Attack]) -> None:
    """Nothing that it is given is changed: weights, gradients, modes, hooks."""
    given, name = scene(kind, some(kind)), kind.name
    for p in given.model.parameters():
        p.grad = torch.full_like(p, 0.5)
    before = {key: value.clone() for key, value in given.model.state_dict().items()}
    gradients = [g.clone() for g in given.release.gradients]
    short(kind)(given.release, given.knowledge, seed=0)
    for key, value in given.model.state_dict().items():
        claim(same([value], [before[key]]), f"{name} changes `{key}` of the victim: work on a copy.")
    claim(
        all((p.grad == 0.5).all() for p in given.model.parameters()),
        f"{name} writes into the `.grad` of the victim's parameters: use torch.autograd.grad.",
    )
    claim(all(p.requires_grad for p in given.model.parameters()), f"{name} freezes parameters of the victim.")
    for module in given.model.modules():
        claim(not module.training, f"{name} leaves the victim in training mode.")
        claim(
            not module._forward_hooks and not module._forward_pre_hooks, f"{name} leaves hooks on the victim."
        )
    claim(same(gradients, given.release.gradients), f"{name} changes the release.")


def noise_is_not_inverted_and_a_release_is(kind: type[Attack]) -> None:
    """Floor: 1 dB above plain grey. Where a gradient is read, the release gives 3 dB more than noise does.

    Without batch-norm statistics, which would give something of the image away whatever the release.
    """
    if not kind.rebuilds_images or "candidates" in kind.needs:
        return
    given, attack, name = scene(kind, 1), short(kind, iterations=60), kind.name
    knowledge = replace(given.knowledge, bn_stats="none", statistics=())
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".* was given no statistics")
        noise, found = (
            psnr(attack(release, knowledge, seed=1).images, given.images)
            for release in (noise_release(given.release), given.release)
        )
    grey = psnr(torch.full_like(given.images, 0.5), given.images)
    claim(
        noise <= grey + 1,
        f"{name} reaches {noise:.1f} dB on pure noise, where a grey image has {grey:.1f} dB: it knows the "
        "image from somewhere else.",
    )
    claim(
        not kind.noise_floor or found > noise + 3,
        f"{name} reaches {found:.1f} dB on a release and {noise:.1f} dB on pure noise: within 60 iterations "
        "it has to gain 3 dB; an attack that reads no gradient says `noise_floor = False`.",
    )


def candidates_are_told_apart_by_a_release_only(kind: type[Attack]) -> None:
    """Floor: of 16 noise releases, right by chance in 2, at most 6 may be answered with the truth."""
    if "candidates" not in kind.needs:
        return
    given, attack = scene(kind, 1), short(kind)

    def right(release: Release) -> bool:
        return torch.equal(attack(release, given.knowledge, seed=1).images, given.images)

    claim(right(given.release), f"{kind.name} does not find the attacked image among eight candidates.")
    lucky = sum(right(noise_release(given.release, seed)) for seed in range(16))
    claim(lucky <= 6, f"{kind.name} finds the image in {lucky} of 16 releases of pure noise: 2 are chance.")


def impossible_releases_are_refused(kind: type[Attack]) -> None:
    """A release that is not finite, or of another model, is an InputError."""
    given = scene(kind, 1)
    for how in ("nan", "inf", "shape", "missing", "unnamed"):
        said = r"NaN or infinite" if how in ("nan", "inf") else r"do not fit"
        with refused(said, f"{kind.name} must refuse a spoilt release ({how})."):
            short(kind)(_spoilt(given.release, how), given.knowledge, seed=0)


def _spoilt(release: Release, how: str) -> Release:
    first, *others = release.gradients
    if how == "shape":
        return replace(release, gradients=(first[..., None], *others))
    if how == "missing":
        return replace(release, names=release.names[1:], gradients=tuple(others))
    if how == "unnamed":
        return replace(release, names=release.names[1:])
    last = others[-1].clone()
    last.view(-1)[0] = float(how)
    return replace(release, gradients=(first, *others[:-1], last))


def updates_are_taken_or_refused(kind: type[Attack]) -> None:
    """An update of several local steps is rebuilt from, in each way there is, or refused in one sentence."""
    given = scene(kind, 3)
    release = replace(given.release, local=LocalTraining(epochs=2, batch_size=2, lr=0.1))
    if not kind.local_steps:
        with refused("needs the gradient of one step", f"{kind.name} must refuse an update: call super()."):
            short(kind)(release, given.knowledge, seed=0)
        return
    ways = parameters(kind)["update"].choices if "update" in parameters(kind) else (None,)
    for way in ways:
        attack = replace(short(kind), **{} if way is None else {"update": way})
        found = attack(release, given.knowledge, seed=0)
        claim(
            found.images.shape == given.images.shape and bool(found.images.isfinite().all()),
            f"{kind.name} must rebuild {len(given.images)} images from an update ({way}).",
        )


def what_it_needs_is_asked_for(kind: type[Attack]) -> None:
    """Without a field of `Knowledge` that it `needs`, it says so."""
    given = scene(kind, 1)
    for name in kind.needs:
        with refused(rf"{kind.name}.* needs", f"{kind.name} must say that it needs `{name}`."):
            short(kind)(given.release, replace(given.knowledge, **{name: None}), seed=0)


def numbers_outside_their_range_are_refused(kind: type[Attack]) -> None:
    """By an InputError that names the parameter."""
    for name, declared in parameters(kind).items():
        for value in outside(declared):
            with refused(f"`{name}`", f"{kind.name} must refuse {name}={value!r} and name `{name}`."):
                kind(**{name: value})


def it_is_a_value(kind: type[Attack]) -> None:
    """Frozen, compared by what it holds, rebuilt from what differs from the defaults, picklable."""
    others = {name: other(declared) for name, declared in parameters(kind).items()}
    given = [{}, *({name: v} for name, v in others.items() if v != parameters(kind)[name].default)]
    for changed in given:
        made = kind(**changed)
        claim(made.changed() == changed, f"{kind.name}(**{changed}) says that it was given {made.changed()}.")
        for again in (attacks.create(kind.name, **made.changed()), pickle.loads(pickle.dumps(made))):
            claim(
                again == made and hash(again) == hash(made),
                f"{kind.name}(**{changed}), made again, is another: compare by parameters only.",
            )
        claim((made == kind()) is (not changed), f"{kind.name}(**{changed}) equals the default one.")
    try:
        made.anything = 1
    except (FrozenInstanceError, AttributeError):
        return
    raise AssertionError(f"{kind.name} can be changed after it was made: leave it frozen.")


def nothing_stands_for_another_value_once_resolved(kind: type[Attack]) -> None:
    """`resolved` replaces every None, and `evaluations` counts the same before and after."""
    resolved = kind().resolved()
    left = [name for name, value in resolved.values().items() if value is None]
    claim(not left, f"`resolved` of {kind.name} leaves {left} at None.")
    claim(resolved.resolved() == resolved, f"`resolved` of {kind.name} changes what is resolved already.")
    count = resolved.evaluations()
    claim(
        type(count) is int and count == kind().evaluations() >= 1,
        f"`evaluations` of {kind.name} must be one whole number above 0, not {count!r}.",
    )


Check = Callable[[type[Attack]], None]
CHECKS: tuple[Check, ...] = (
    is_registered,
    answers_are_well_formed,
    the_seed_decides_everything,
    the_victim_and_the_release_stay_as_they_are,
    noise_is_not_inverted_and_a_release_is,
    candidates_are_told_apart_by_a_release_only,
    impossible_releases_are_refused,
    updates_are_taken_or_refused,
    what_it_needs_is_asked_for,
    numbers_outside_their_range_are_refused,
    it_is_a_value,
    nothing_stands_for_another_value_once_resolved,
)

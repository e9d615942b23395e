"""`attack`: a release from somebody's training, attacked and scored like those of a benchmark."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pandas as pd
from torch import Tensor, nn
from torch.nn import functional as F

import defenses
from attacks import Attack
from dpbench.api import training
from dpbench.api.doubts import doubts
from dpbench.api.given import all_parts, public_of, settings, typed
from dpbench.api.session import Progress, carry_out
from dpbench.cell import parts, registered
from dpbench.cell.spec import Part
from dpbench.data.channels import IMAGENET_MEAN, IMAGENET_STD
from dpbench.protocol import InputError, Loss, Release
from dpbench.sweep.own_checks import checked_batches, checked_others
from dpbench.sweep.own_forms import form_for
from dpbench.sweep.own_inputs import OwnInputs
from dpbench.sweep.own_model import copied, suited
from dpbench.system import process
from dpbench.system.words import counted

_BUDGET = ("train_size", "train_batch_size", "epochs", "delta", "accountant", "eps_scope")
"""What states the training that a release is from."""
_SENT = (
    *("eps", "noise_multiplier", "max_grad_norm", "unit", "clients", "noise", "threat_model", "releases"),
    *("local_epochs", "local_batch_size", "local_lr"),
)
"""What the release says itself."""


def attack(
    release: Release,
    *,
    model: nn.Module,
    originals: tuple[Tensor, Tensor],
    attacks: str | Attack | Sequence[str | Attack] = ("inverting-gradients",),
    labels_known: bool = True,
    others: tuple[Tensor, Tensor] | None = None,
    loss: Loss = F.cross_entropy,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
    mean_image: Tensor | None = None,
    victim: str = "trained",
    device: str | None = None,
    out: str | Path | None = None,
    progress: bool | Progress = True,
    **parameters: Any,
) -> pd.DataFrame:
    """Attack what a training really sent.

    The attacks see the release and the model. `originals` serve the scores and two comparisons: the gradient
    that would have been sent without the defence, and the floors. The attacker is told how many images are
    in the batch, though under Poisson sampling the number is not public.

    Args:
        release: of `Release.from_optimizer`, `Release.from_gradients`, `Release.from_update` or `capture`.
        model: as it was before the step; as `benchmark` takes it.
        originals: the step's images as the model got them, in a form that `benchmark` takes, and their
            labels; of an update all the client's, in the order it trained in.
        attacks: names of `attacks.names()` or objects, one or several.
        labels_known: whether the attacker is told the labels.
        others: public images and labels, as for `benchmark`.
        loss: (logits [B, K], labels [B]) -> mean over the batch, as in the training.
        mean: public per-channel mean of the data in [0, 1].
        std: public per-channel standard deviation.
        mean_image: of the shape of one image, the mean of OTHER images.
        victim: what to call the model's state in the table.
        device: `cpu`, `cuda`, or None for the graphics card if there is one.
        out: a folder to keep the run in; None keeps nothing.
        progress: as for `benchmark`.
        **parameters: parameters of attacks, and the budget: with `train_size`, `epochs` and `delta` the rows
            have the epsilon of the training; without `train_size` only that of the release.

    Returns:
        One row per image and attack, undefended rows and floors included, as of `benchmark`.

    Warns:
        UserWarning: where the release does not look like what it says it is: a gradient of other images or
            of another model, other gradients that were clipped, or another amount of noise; and where an
            epsilon rests on a sampling that could not be read, or that does not draw so many images.

    Raises:
        InputError: for a release that does not fit the model, and for whatever `benchmark` refuses.
    """
    with process.clean_state():
        registered.load()
        kept = copied(model)
        batches = checked_batches(*_pair(originals), None, ())
        form = form_for(kept, batches[0][0])
        images, labels, places = batches[0]
        images = form(images)
        batches = [(images, labels, places)]
        loss, num_classes = suited(kept, loss, batches)
        if others is not None:
            others = checked_others(others, batches, num_classes, form)
        for name in _SENT:
            if name in parameters:
                raise InputError(f"attack() takes no {name}: it attacks the release as it was sent.")
        release = _declared(release)
        sent = _fitted(release, kept, len(images))
        for line in doubts(sent, kept, loss, images, labels):
            warnings.warn(line, stacklevel=2)
        sent = replace(sent, clipped=())  # no attacker knows them
        public = public_of(others, mean, std, mean_image, images.shape[1:])
        victim = typed("victim", victim, str)
        inputs = OwnInputs(kept, loss, num_classes, batches, public, victim, sent, release.batch_size)
        budget = {name: parameters.pop(name) for name in tuple(parameters) if name in _BUDGET}
        if parts.has_budget(_name(release)[0]):
            crowded = training.crowded(release, budget, len(images))
            for line in training.unread(release, budget) + crowded:
                warnings.warn(line, stacklevel=2)
        values = settings("attack", parameters) | {
            "attack": all_parts("attacks", attacks),
            "defense": (_defence(release, budget),),
            "labels": ("known" if typed("labels_known", labels_known, bool) else "inferred",),
            "threat_model": ("honest",),
        }
        if release.local is not None:
            values |= {f"local_{name}": (value,) for name, value in asdict(release.local).items()}
        engine = parameters.get("engine", "auto")
        return carry_out(inputs, values, device=device, engine=engine, out=out, progress=progress)


def _pair(originals: Any) -> tuple[Any, Any]:
    try:
        images, labels = originals
    except (TypeError, ValueError):
        raise InputError("originals must be a pair of images and labels.") from None
    return images, labels


def _name(release: Release) -> tuple[str, dict[str, Any]]:
    """The release's defence by name, and the parameters of all its stages."""
    name = "+".join(stage.name for stage in release.defense) or "none"
    return name, {key: value for stage in release.defense for key, value in stage.parameters.items()}


def _declared(release: Release) -> Release:
    """The release with all parameters of its stages, also those that were left at their defaults.

    Raises:
        InputError: for an unknown stage, or a parameter that it does not take, and for a stage that has no
            place in an update.
    """
    name, given = _name(release)
    chain = defenses.create(name, **given)
    first = chain.stages[0] if chain.stages else None
    if release.local is not None and isinstance(first, defenses.Aggregator) and not first.takes_updates:
        raise InputError(
            f"{first.name} works on each sample's gradient, which no update has: say what was done to the "
            "update itself, such as clipping with `unit` user."
        )
    return replace(release, defense=tuple(stage.stage() for stage in chain.stages))


def _fitted(release: Release, model: nn.Module, count: int) -> Release:
    """The release under the model's names, as a mean over the images that were there.

    Poisson sampling draws batches of any size and divides by the expected one; attacks rebuild a batch.

    Raises:
        InputError: for gradients of other shapes than the model's trainable parameters or with entries that
            are not finite, and for another number of images than the release is the mean of.
    """
    wanted = {name: p.shape for name, p in model.named_parameters() if p.requires_grad}
    gradients, found = release.gradients, _by_name(release, model)
    if set(found) == set(wanted):
        gradients = tuple(found[name] for name in wanted)
    # else an optimiser read them, which knows no names, but has the parameters in the model's order
    if [g.shape for g in gradients] != list(wanted.values()):
        raise InputError(
            "The release's gradients do not fit the model's trainable parameters: give the model that they "
            "were taken from, with the same parameters frozen."
        )
    if not all(bool(gradient.isfinite().all()) for gradient in gradients):
        raise InputError("Some entry of the release is not finite: take another step of your training.")
    names = {stage.name for stage in release.defense}
    by_expected = bool(names & {"clip", "dp"}) and "noise" not in names
    if release.batch_size != count and not by_expected:
        if release.local is not None:
            raise InputError(
                f"The release is the update of {counted(release.batch_size, 'image')} and `originals` "
                f"has {count}: say how many `images` the client has in `Release.from_update`, and give "
                "them all."
            )
        raise InputError(
            f"The release is a mean over {counted(release.batch_size, 'image')} and `originals` has "
            f"{count}: give all images of the step."
        )
    scale = release.batch_size / count
    scaled = tuple(gradient.detach().cpu().float() * scale for gradient in gradients)
    return replace(release, names=tuple(wanted), gradients=scaled, batch_size=count)


def _by_name(release: Release, model: nn.Module) -> dict[str, Tensor]:
    """The gradients by name, less what a state dict has beside trainable parameters: frozen and tied ones."""
    every = dict(model.named_parameters(remove_duplicate=False))
    once = {name: p for name, p in model.named_parameters() if p.requires_grad}
    twice = {name for name, p in every.items() if name not in once and any(p is q for q in once.values())}
    idle = {name for name, p in every.items() if not p.requires_grad} | dict(model.named_buffers()).keys()
    return {
        name: gradient
        for name, gradient in zip(release.names, release.gradients, strict=True)
        if name not in twice and (name not in idle or bool(gradient.any()))
    }


def _defence(release: Release, budget: dict[str, Any]) -> Part:
    """The defence that the release went through, with the budget of the training it is from.

    Raises:
        InputError: for a budget where there is no guarantee, and for half of one.
    """
    name, given = _name(release)
    declared = parts.defence_parameters(name)
    if not parts.has_budget(name):
        if budget:
            raise InputError(f"{next(iter(budget))} belongs to a budget, and {name} has none: leave it out.")
    else:
        training.check_stated(budget)
        budget = {key: declared[key].checked(value) for key, value in budget.items()}
        if "train_size" in budget:
            batch = training.expected_batch(release, budget)
            epochs = training.epochs_of(release, budget, batch)
            given |= budget | {"train_batch_size": batch, "epochs": epochs}
        else:
            given |= budget | {"eps_scope": "release"}
    changed = {key: declared[key].checked(value) for key, value in given.items() if key in declared}
    kept = {k: v for k, v in changed.items() if not (declared[k].has_default and v == declared[k].default)}
    return Part(name=name, parameters=tuple(sorted(kept.items())))

"""One call: the accuracy of a model that is trained under defences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from numbers import Real
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from rich.console import Console
from torch import Tensor, nn
from torch.utils.data import Dataset

from defenses import Chain, Defense
from dpbench.accuracy import data, networks, session
from dpbench.accuracy.setting import settings
from dpbench.accuracy.trial import Model, Trial
from dpbench.accuracy.update import check_private
from dpbench.cell import registered
from dpbench.cell.spec import Part
from dpbench.protocol import InputError
from dpbench.sweep.axes import options
from dpbench.sweep.option import DEFENCES
from dpbench.system import devices, process
from dpbench.system.atomic import refused_as_sentence
from dpbench.system.paths import absolute

LEARNING_RATE = 1e-3
"""Of Adam, for a model of somebody's own."""
_RATES = ("learning_rate", "without_noise")


def utility(
    make_model: str | Callable[[], nn.Module],
    train: tuple[Tensor, Tensor] | Dataset,
    test: tuple[Tensor, Tensor] | Dataset,
    *,
    defense: str | Chain | Defense | Sequence[Any] = "dp",
    seeds: int | Sequence[int] = (0, 1, 2),
    learning_rate: float | None = None,
    name: str | None = None,
    device: str | None = None,
    out: str | Path | None = None,
    progress: bool = True,
    **parameters: Any,
) -> pd.DataFrame:
    """What defences cost: the test accuracy of a model trained under each of them, and without any.

    Every training draws its batches by Poisson sampling, each sample with probability q, for T steps. `dp`
    has Opacus' optimiser (Abadi et al. 2016) at the noise that its budget allows; every other defence treats
    the gradient of each step as it treats the one that is attacked.

    Args:
        make_model: makes the model anew, with weights of its own, from PyTorch's random state; it takes what
            `train` holds and returns logits [B, K]. Or the name of one of dpbench's: `convnet-tanh`,
            `scattering-linear`.
        train: images [N, ...] and labels [N] in [0, K); or a PyTorch data set of (image tensor, label), which
            is read into memory. Images are floats in [0, 1], or bytes, which are divided by 255.
        test: likewise; no training sees them.
        defense: names of `defenses.names()`, chained by `+`, or objects of `defenses.create(...)`, one or
            several. `none` comes along.
        seeds: each is a training of its own: weights, batches, noise.
        learning_rate: of Adam; None is 0.001, and the tuned one of dpbench's own models.
        name: what to call the model in the table; None is the name of `make_model`.
        device: `cpu` or `cuda`; None takes the graphics card if there is one.
        out: a folder in which `utility.csv` is written; None writes none. Accuracies are kept in the cache
            folder in any case, so the same call goes on where it was interrupted.
        progress: show how far it is, on stderr.
        **parameters: of the budget and of the defences: `eps=[1, 8]` or `noise_multiplier`, `delta`,
            `train_batch_size`, `epochs`, `max_grad_norm`, `prune_ratio`, ... Several values are all trained.
            `train_size` is the number of training images; give a smaller one to train on so many of them,
            drawn at random.

    Returns:
        One row for each training, with the columns of `dpbench.accuracy.table.frame`. A training that failed
        has `status` failed, a defence that cannot be trained `skipped`, and `error` says why.

    Raises:
        InputError: for data, a model or a parameter that cannot be used, and where no defence that was asked
            for could be trained.

    Example:
        >>> images, labels = torch.rand(64, 1, 4, 4), torch.arange(64) % 2
        >>> make_model = lambda: nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
        >>> found = utility(make_model, (images, labels), (images, labels), defense="clip", epochs=1,
        ...                 train_batch_size=16, seeds=0, progress=False)
        >>> found["defense"].tolist(), found["steps"].tolist()
        (['none', 'clip'], [4, 4])
    """
    with process.clean_state():
        registered.load()
        images = data.checked(train, test)
        model = _model(make_model, learning_rate, name)
        made = None if model.features else _made(model, images)
        asked = tuple(map(_part, _several(defense)))
        values = checked_values(parameters)
        values["train_size"] = values.get("train_size") or (len(images.train[1]),)
        device = devices.chosen(device)
        trials = [
            Trial(model, setting, seed, images.subset(setting.train_size), device)
            for setting in settings(asked, values)
            for seed in _checked_seeds(seeds)
        ]
        for trial in trials:  # what can never work is said before anything is trained
            check_private(trial.setting.chain, made)
        console = Console(stderr=True, emoji=False)
        folder = None if out is None else absolute(out)
        if folder is not None:
            with refused_as_sentence(folder):
                folder.mkdir(parents=True, exist_ok=True)
        found = session.table_of(trials, console, not progress, folder)
        if not (found["status"] == "ok").any():
            raise InputError(f"Nothing could be trained. {found['error'].iloc[0]}")
        return found


def checked_values(given: dict[str, Any]) -> dict[str, tuple[Any, ...]]:
    """Parameters of budget and defences, each with its values.

    Raises:
        InputError: for a parameter that no defence has, or a value outside its range.
    """
    known = {name: each for name, each in options().items() if each.group == DEFENCES or name == "eps"}
    known.pop("defense", None)
    for name in given:
        if name not in known:
            raise InputError(f"utility() takes no {name}; it takes {', '.join(known)}.")
    values = {name: each.default for name, each in known.items()}
    values |= {name: known[name].checked(list(_several(value))) for name, value in given.items()}
    if values["eps"] and values["noise_multiplier"]:
        raise InputError("Give `eps` or `noise_multiplier`, not both: one follows from the other.")
    return values


def _model(make_model: Any, learning_rate: float | None, name: str | None) -> Model:
    if isinstance(make_model, str):
        own = networks.named(make_model)
        rates = {} if learning_rate is None else dict.fromkeys(_RATES, _rate(learning_rate))
        return replace(own, name=name or own.name, **rates)
    if not callable(make_model) or isinstance(make_model, nn.Module):
        raise InputError("`make_model` must be a function that makes the model anew for each training.")
    name = name or getattr(make_model, "__name__", type(make_model).__name__)
    rate = LEARNING_RATE if learning_rate is None else _rate(learning_rate)
    return Model(name, lambda shape, classes: make_model(), rate, rate)


def _made(model: Model, images: data.Images) -> nn.Module:
    """The model, after a look at what it returns."""
    made = model.made(tuple(images.train[0].shape[1:]), images.num_classes)
    if not isinstance(made, nn.Module):
        raise InputError(f"`make_model` must make a PyTorch module, not {type(made).__name__}.")
    trained = {id(p) for p in made.parameters() if p.requires_grad}
    if not trained:
        raise InputError("The model has no parameter with `requires_grad`, so there is nothing to train.")
    again = model.made(tuple(images.train[0].shape[1:]), images.num_classes)
    if not trained.isdisjoint(map(id, again.parameters())):
        raise InputError(
            "`make_model` returns weights that it has returned before, so each training would go on where "
            "the last one ended: make them in the function, or return a `copy.deepcopy`."
        )
    try:
        with torch.no_grad():
            outputs = made.eval()(data.scaled(images.test[0][:1]))
    except Exception as error:  # of somebody's model
        reason = (str(error).splitlines() or [type(error).__name__])[0][:120].rstrip(".")
        raise InputError(
            f"The model cannot take images of shape {list(images.test[0].shape[1:])} ({reason}): make one "
            "that can."
        ) from error
    if outputs.ndim != 2 or outputs.shape[1] < images.num_classes:
        raise InputError(
            f"The model must return logits [B, {images.num_classes}], one for each class of the labels, not "
            f"{list(outputs.shape)}."
        )
    return made


def _rate(given: Any) -> float:
    if isinstance(given, bool) or not isinstance(given, Real) or not 0 < given < float("inf"):
        raise InputError(f"`learning_rate` must be a finite number above 0, not {given!r}.")
    return float(given)


def _checked_seeds(given: int | Sequence[int]) -> tuple[int, ...]:
    found = _several(given)
    if not found or any(type(seed) is not int or seed < 0 for seed in found):
        raise InputError("`seeds` must be whole numbers from 0 on, at least one.")
    return tuple(dict.fromkeys(found))


def _part(given: Any) -> str | Part:
    """A name, or what an object differs in from its defaults."""
    if isinstance(given, str):
        return given
    if not isinstance(given, Defense | Chain):
        raise InputError(f"{given!r} is neither the name of a defence nor one.")
    return Part(name=given.name, parameters=tuple(sorted(given.changed().items())))


def _several(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, list | tuple | range) else (value,)

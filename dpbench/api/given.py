"""What callers give, in the words of a sweep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

import defenses as defences
from attacks import Attack
from dpbench.cell.spec import Part
from dpbench.data.channels import GREY_MEAN, GREY_STD, IMAGENET_MEAN, IMAGENET_STD
from dpbench.protocol import InputError, meant
from dpbench.sweep.axes import options
from dpbench.sweep.own_inputs import Public
from dpbench.system.words import counted

_NOT_HERE = (
    "data",
    "image_size",
    "model",
    "norm",
    "weights",
    "label_draw",
    "logit_scale",
    "trainable",
    "labels",
    "plugin",
)
_NOT_HERE += ("batch_size", "batch_seed", "attack", "victim", "tuned")
"""Options of the command line that stand for the model and the images, which are given here."""
_HERE = (
    "attacks",
    "labels_known",
    "others",
    "loss",
    "mean",
    "std",
    "mean_image",
    "device",
    "out",
    "progress",
)
"""Keywords that are no options."""

MIDDLE = (0.5, 0.25)
"""Mean and standard deviation of inputs that are not pictures, of which nothing is known but their range."""


def settings(function: str, given: Mapping[str, Any]) -> dict[str, tuple[Any, ...]]:
    """What a sweep varies: the options given here, and the defaults of the others.

    Args:
        function: what was called, for messages.
        given: its keywords.

    Raises:
        InputError: for an option that does not exist or decides nothing, or a value outside its range.
    """
    known = {name: each for name, each in options().items() if name not in _NOT_HERE}
    values = {name: each.default for name, each in known.items() if each.several}
    for name, value in given.items():
        if name not in known or not known[name].decides:
            listed = ", ".join(name for name, each in known.items() if each.decides)
            raise InputError(
                f"{function}() takes no {name}{meant(name, [*known, *_HERE])}; it takes {listed}."
            )
        if known[name].several and value is not None:
            values[name] = known[name].given(several(value))
    if values["eps"] and values["noise_multiplier"]:
        raise InputError("Give `eps` or `noise_multiplier`, not both: one follows from the other.")
    return values


def checked(name: str, value: Any) -> Any:
    """One value of an option of the command line; None, which leaves it open, as it is.

    Raises:
        InputError: for a value of another type or outside its range.
    """
    return None if value is None else options()[name].parameter.checked(value)


def typed(name: str, value: Any, kind: type) -> Any:
    """`value`, if it is of a `kind`, bool or str; an InputError else."""
    if not isinstance(value, kind):
        wanted = {bool: "True or False", str: "a word"}[kind]
        raise InputError(f"`{name}` must be {wanted}, not {value!r}.")
    return value


def part(given: Any) -> str | Part:
    """A name, or what an object differs in from its defaults.

    Raises:
        InputError: for anything else, and for a value that cannot be kept, as it is of no declared parameter.
    """
    if isinstance(given, str):
        return given
    if not isinstance(given, Attack | defences.Defense | defences.Chain):
        raise InputError(f"{given!r} is neither a name nor an attack or a defence.")
    if not getattr(given, "name", ""):
        kind = type(given).__name__
        raise InputError(
            f"{kind} is not registered: put @attack('name') or @defense('name') above the class."
        )
    for each in given.stages if isinstance(given, defences.Chain) else (given,):
        if undeclared := [found.name for found in fields(each) if _is_lost(found, getattr(each, found.name))]:
            raise InputError(
                f"`{undeclared[0]}` of {type(each).__name__} is no declared parameter, so its value would be "
                "lost: give it `parameter(default, help)` in the class."
            )
    return Part(name=given.name, parameters=tuple(sorted(given.changed().items())))


def _is_lost(declared: Field, value: Any) -> bool:
    """Whether a field has a value other than its default, and nothing keeps it; runs decide the two named."""
    if "parameter" in declared.metadata or not declared.init or declared.name in ("engine", "guarantee"):
        return False
    default = declared.default if declared.default_factory is MISSING else declared.default_factory()
    return value is not default and (value == default) is not True


def all_parts(name: str, given: Any) -> tuple[str | Part, ...]:
    """Several of `part`, of the keyword `name`.

    Raises:
        InputError: for an empty list, and as `part`.
    """
    if isinstance(given, list | tuple) and not given:
        raise InputError(f"`{name}` needs at least one value.")
    return tuple(map(part, several(given)))


def public_of(
    others: tuple[Tensor, Tensor] | None,
    mean: Sequence[float],
    std: Sequence[float],
    mean_image: Tensor | None,
    shape: Sequence[int],
) -> Public:
    """What is publicly known of the images; arguments as those of `benchmark`, `shape` is that of an image.

    Raises:
        InputError: for what are no numbers or none of images in [0, 1], statistics of another number of
            channels, or a mean image of another shape.
    """
    mean, std = _floats("mean", mean), _floats("std", std)
    if not all(value > 0 for value in std):  # a search could not move in such a channel
        raise InputError(f"`std` must be above 0, not {min(std):g}: give 1 for what never changes.")
    if (mean, std) == (IMAGENET_MEAN, IMAGENET_STD):
        if len(shape) != 3:
            mean, std = (MIDDLE[0],) * shape[0], (MIDDLE[1],) * shape[0]
        elif shape[0] == 1:
            mean, std = GREY_MEAN, GREY_STD
    channel = "feature" if len(shape) == 1 else "channel"
    for name, values in (("mean", mean), ("std", std)):
        if len(values) != shape[0]:
            raise InputError(
                f"`{name}` has {counted(len(values), 'number')} and the images have "
                f"{counted(shape[0], channel)}: give one for each."
            )
    image = _mean_image(mean_image, others, mean, shape)
    if image.shape != torch.Size(shape):
        raise InputError(f"`mean_image` must be {list(shape)} like the images, not {list(image.shape)}.")
    return Public(mean, std, image, others)


def _mean_image(
    given: Tensor | None,
    others: tuple[Tensor, Tensor] | None,
    mean: Sequence[float],
    shape: Sequence[int],
) -> Tensor:
    if given is not None:
        try:
            image = torch.as_tensor(given).detach().cpu().float().clone()
        except (TypeError, ValueError, RuntimeError):
            raise InputError("`mean_image` must be a tensor or an array like one of the images.") from None
        if not bool(((image >= 0) & (image <= 1)).all()):
            raise InputError("`mean_image` must lie in [0, 1], as the images do.")
        return image
    if others is not None:
        return others[0].mean(0)
    return torch.tensor(mean).view(-1, *[1] * (len(shape) - 1)).expand(*shape).clone()


def _floats(name: str, values: Sequence[float]) -> tuple[float, ...]:
    try:
        found = tuple(float(value) for value in values)
    except (TypeError, ValueError, RuntimeError):
        raise InputError(f"`{name}` must be a number for each channel, not {values!r}.") from None
    if not all(0 <= value <= 1 for value in found):
        raise InputError(
            f"`{name}` must be of images in [0, 1], not {', '.join(f'{value:g}' for value in found)}: divide "
            "it by the largest value that a pixel can have."
        )
    return found


def several(value: object) -> tuple[Any, ...]:
    """One value or several, in plain Python: numbers may come from NumPy or PyTorch."""
    if value is None:
        return ()
    if isinstance(value, np.ndarray | Tensor) and value.ndim:
        value = value.tolist()
    found = value if isinstance(value, list | tuple) else (value,)
    return tuple(each.item() if isinstance(each, np.generic | Tensor) else each for each in found)

"""The network whose gradient is attacked: shipped weights, a user's file, or fresh ones."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from dpbench import assets
from dpbench.data import Dataset
from dpbench.protocol import InputError, Loss
from dpbench.system import behaviour, digest
from dpbench.system.paths import expanded
from dpbench.victim.fitting import fit, outputs, run
from dpbench.victim.given import is_given
from dpbench.victim.networks import build
from dpbench.victim.weights import Weights, check_fit, load_weights, read


@dataclass(frozen=True)
class Victim:
    """A model as the client holds it.

    Attributes:
        model: takes images in [0, 1], in the mode (training or evaluation) the gradient is taken in.
        loss: mean-reduced.
        accuracy: on its own task's test set, in [0, 1]; None where it was not measured.
    """

    model: nn.Module
    loss: Loss
    accuracy: float | None


def weights_digest(
    model: str, norm: str, training: str, weights: str | None, data: Dataset, size: int
) -> str:
    """A hash of the weights `load` would take; empty for `untrained`, which the program's version decides.

    Of a network that the user named, the settings of its modules count as its weights do.

    Args:
        model: a network by name.
        norm: one of `dpbench.victim.networks.NORMS`.
        training: how far it was trained: `untrained`, `early` or `trained`.
        weights: the user's file or an asset, in place of what is shipped.
        data: what it is to be shown.
        size: height and width of the images, pixels.

    Raises:
        InputError: where that victim does not exist, was trained on other classes or another size, or where
            the file of weights does not fit.
    """
    if is_given(model):
        found = None if weights is None else read(weights_file(weights))
        network = _given(model, norm, found, data, size)
        return behaviour.of_module(network)
    build_shape(model, norm)
    if weights is not None:
        found = read(weights_file(weights))
        _with_weights(model, norm, found, data, size)
        return found.digest
    if training == "untrained":
        return ""
    known, name = _records(), f"{model}-{norm}-{training}"
    if name not in known:
        listed = ", ".join(sorted(known))
        raise InputError(
            f"No {training} victim {model} with norm {norm} is shipped (there are {listed}): "
            "use --victim untrained or --weights FILE."
        )
    if data.num_classes != 10 or size != 32:
        raise InputError(
            f"The shipped {training} victims know CIFAR-10's 10 classes at 32x32, and {data.name} has "
            f"{data.num_classes} at {size}x{size}: use --victim untrained or --weights FILE."
        )
    return read(_shipped(name)).digest


def takes_grey(model: str, data: Dataset) -> bool:
    """Whether a network is one that a user named, and takes one channel and not three.

    Args:
        model: by name.
        data: images in colour, which are not looked at.

    Raises:
        InputError: for a network that cannot be made.
    """
    return is_given(model) and _grey(model, data.num_classes, data.images.shape[-1], data.mean, data.std)


@cache
def _grey(model: str, num_classes: int, size: int, mean: tuple[float, ...], std: tuple[float, ...]) -> bool:
    network = build(model, num_classes, None, size, mean, std).float()
    if _takes(network, 3, size):
        return False
    # one that takes neither is to be refused for its size, and not for channels that it never asked for
    filters = next((p for p in network.parameters() if p.ndim == 4), None)
    return _takes(network, 1, size) or (filters is not None and filters.shape[1] == 1)


def _takes(network: nn.Module, channels: int, size: int) -> bool:
    try:
        run(network, torch.zeros(2, channels, size, size))
    except InputError:
        return False
    return True


@cache
def build_shape(model: str, norm: str) -> None:
    """Raise InputError for an unknown network or a norm it cannot have."""
    build(model, norm=norm)


def load(
    model: str,
    norm: str,
    training: str,
    weights: str | None,
    data: Dataset,
    size: int,
    planned: str = "",
) -> Victim:
    """The victim for `size` x `size` images of `data`, in evaluation mode, on the CPU.

    Args:
        model: as for `weights_digest`, whose other arguments are the same too.
        norm: likewise.
        training: likewise.
        weights: likewise.
        data: likewise.
        size: likewise.
        planned: what `weights_digest` gave when the run was planned; empty where there was no plan.

    Raises:
        InputError: for weights that do not exist, do not fit, or have changed since.
    """
    if is_given(model):
        found = None if weights is None else read(weights_file(weights))
        network = _given(model, norm, found, data, size)
        named = f"The model {model}" if weights is None else f"The model {model} or its weights"
        digest.unchanged(named, planned, behaviour.of_module(network))
    elif weights is not None:
        network = _with_weights(model, norm, read(weights_file(weights), planned), data, size)
    elif training != "untrained":
        # the shipped victims learnt behind CIFAR-10's own statistics, whatever data is shown to them
        network = build(model, data.num_classes, norm, size)
        load_weights(network, read(_shipped(f"{model}-{norm}-{training}"), planned))
    else:
        network = build(model, data.num_classes, norm, size, data.mean, data.std)
    return Victim(network.eval(), F.cross_entropy, accuracy(model, norm, training, weights))


def accuracy(model: str, norm: str, training: str, weights: str | None) -> float | None:
    """Test accuracy in [0, 1] of a shipped victim; None of any other."""
    record = _records().get(f"{model}-{norm}-{training}") if weights is None else None
    return record["accuracy"] if record else None


def weights_file(weights: str) -> Path:
    """The file `--weights` names: an asset's (`resnet50-imagenet`), fetched if need be, or the user's."""
    return assets.path(weights) if weights in assets.ASSETS else expanded(weights)


def _with_weights(model: str, norm: str, weights: Weights, data: Dataset, size: int) -> nn.Module:
    """The network with the user's weights, which may know more classes than `data` has."""
    classes = weights.outputs()
    if classes < data.num_classes:
        raise InputError(
            f"{weights.path} has {classes} outputs, and labels of {data.name} reach {data.num_classes - 1}: "
            "use weights for these classes."
        )
    return load_weights(build(model, classes, norm, size, data.mean, data.std), weights)


def _given(model: str, norm: str, weights: Weights | None, data: Dataset, size: int) -> nn.Module:
    """A network that the user named, which returns logits."""
    if weights is None:
        network = build(model, data.num_classes, norm, size, data.mean, data.std)
    else:
        network = _fitting(model, norm, weights, data, size)
    if not any(p.requires_grad for p in network.parameters()):
        raise InputError(f"{model} has no trainable parameter, so there is no gradient to attack.")
    seen = torch.zeros(2, len(data.mean), size, size)
    fit(network.float(), F.cross_entropy, seen)
    if (found := outputs(network, seen)) < data.num_classes:
        raise InputError(
            f"{model} has {found} outputs, and labels of {data.name} reach {data.num_classes - 1}: use a "
            "model for these classes."
        )
    return network


def _fitting(model: str, norm: str, weights: Weights, data: Dataset, size: int) -> nn.Module:
    """The user's network with the user's weights, made for as many classes as these know.

    That is the data's number of classes, or one of those that `Weights.rows` takes from the file.
    """
    first, *others = dict.fromkeys((data.num_classes, *weights.rows()))
    problems: list[str] = []
    for classes in (first, *others):
        try:
            network = build(model, classes, norm, size, data.mean, data.std)
            check_fit(network, weights)
        except InputError as error:
            problems.append(str(error))
        else:
            return load_weights(network, weights)
    if len(set(problems)) == 1:  # the number of classes makes no difference
        raise InputError(problems[0])
    tried = " or ".join(map(str, others))
    raise InputError(
        f"{problems[0].removesuffix('.')}; with {tried} classes in place of {first} it does not fit either."
    )


def _shipped(name: str) -> Path:
    return Path(str(files("dpbench.victim"))) / "shipped" / f"{name}.safetensors"


@cache
def _records() -> dict[str, dict[str, Any]]:
    return json.loads((_shipped("victims").with_name("victims.json")).read_text(encoding="utf-8"))

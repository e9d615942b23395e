"""The network whose gradient is attacked: shipped weights, a user's file, or fresh ones."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F

from dpbench import assets
from dpbench.data import Dataset
from dpbench.protocol import InputError, Loss
from dpbench.system import digest
from dpbench.victim.networks import DEFAULT_NORM, ResNet, build, models, with_large_stem
from dpbench.victim.weights import large_stem, load_weights, outputs

STATES = ("early", "trained", "untrained")


@dataclass(frozen=True)
class Victim:
    """A model as the client holds it.

    Attributes:
        model: takes images in [0, 1], in the state (training or evaluation) the gradient is taken in.
        loss: mean-reduced.
        accuracy: on its own task's test set, in [0, 1]; None where it was not measured.
    """

    model: nn.Module
    loss: Loss
    accuracy: float | None


def usual_norm(model: str) -> str:
    """The norm a network has unless another is asked for; an unknown network is an InputError."""
    _ = models[model]
    return DEFAULT_NORM.get(model, "frozen-bn")


def weights_digest(model: str, norm: str, state: str, weights: str | None, data: Dataset, size: int) -> str:
    """A hash of the weights `load` would take; empty for `untrained`, which the program's version decides.

    Raises:
        InputError: where that victim does not exist, was trained on other classes or another size, or where
            the file of weights does not fit.
    """
    build_shape(model, norm)
    if weights is not None:
        load(model, norm, state, weights, data, size)
        return digest.file(weights_file(weights))
    if state == "untrained":
        return ""
    known, name = _records(), f"{model}-{norm}-{state}"
    if name not in known:
        listed = ", ".join(sorted(known))
        raise InputError(
            f"No {state} victim {model} with norm {norm} is shipped (there are {listed}): "
            "use --victim untrained or --weights FILE."
        )
    if data.num_classes != 10 or size != 32:
        raise InputError(
            f"The shipped {state} victims know CIFAR-10's 10 classes at 32x32, and {data.name} has "
            f"{data.num_classes} at {size}x{size}: use --victim untrained or --weights FILE."
        )
    return digest.file(_home(name))


@cache
def build_shape(model: str, norm: str) -> None:
    """Raise InputError for an unknown network or a norm it cannot have."""
    build(model, norm=norm)


def load(model: str, norm: str, state: str, weights: str | None, data: Dataset, size: int) -> Victim:
    """The victim for `size` x `size` images of `data`, in evaluation mode, on the CPU.

    Raises:
        InputError: for weights that do not exist or do not fit.
    """
    if weights is not None:
        file = weights_file(weights)
        classes = outputs(file)
        if classes < data.num_classes:
            raise InputError(
                f"{weights} has {classes} outputs, and labels of {data.name} reach {data.num_classes - 1}: "
                "use weights for these classes."
            )
        network = build(model, classes, norm, size, data.mean, data.std)
        if isinstance(network, ResNet) and large_stem(file):
            network = with_large_stem(network)
        network = load_weights(network, file)
    elif state != "untrained":
        name = f"{model}-{norm}-{state}"
        # the shipped victims learnt behind CIFAR-10's own statistics, whatever data is shown to them
        network = build(model, data.num_classes, norm, size)
        stored = load_file(_home(name))
        network.load_state_dict({key: value.float() for key, value in stored.items()})
    else:
        network = build(model, data.num_classes, norm, size, data.mean, data.std)
    return Victim(network.eval(), F.cross_entropy, accuracy(model, norm, state, weights))


def accuracy(model: str, norm: str, state: str, weights: str | None) -> float | None:
    """Test accuracy in [0, 1] of a shipped victim; None of any other."""
    record = _records().get(f"{model}-{norm}-{state}") if weights is None else None
    return record["accuracy"] if record else None


def weights_file(weights: str) -> Path:
    """The file `--weights` names: an asset's (`resnet50-imagenet`), fetched if need be, or the user's."""
    return assets.path(weights) if weights in assets.ASSETS else Path(weights)


def _home(name: str) -> Path:
    return Path(str(files("dpbench.victim"))) / "shipped" / f"{name}.safetensors"


@cache
def _records() -> dict[str, dict[str, Any]]:
    return json.loads((_home("victims").with_name("victims.json")).read_text())

"""Networks that users name on the command line: a factory of their own, or one of a library."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from torch import Tensor, nn

from dpbench.protocol import InputError, meant
from dpbench.system.plugins import imported
from dpbench.victim.layers import Normalise

LIBRARIES = ("torchvision", "timm", "transformers")
OWN = "own"
"""The norm of a network that dpbench did not build."""


def is_given(model: str) -> bool:
    """Whether a name is that of no network of dpbench's, but `module:factory` or `library:name`."""
    return ":" in model


def training_of(model: str) -> str:
    """What the state of a given model is called unless the user says: libraries' weights are fresh ones."""
    return "untrained" if model.partition(":")[0] in LIBRARIES else "trained"


@dataclass(frozen=True)
class Factory:
    """Makes a network that a user named; called as the constructors of `dpbench.victim.networks`.

    Attributes:
        name: as it was given.
        function: the factory; for a library, what makes the network there.
    """

    name: str
    function: Callable[..., nn.Module]

    usual_norm = OWN

    def __call__(
        self, num_classes: int, norm: str, size: int, mean: Sequence[float], std: Sequence[float]
    ) -> nn.Module:
        """The network.

        A user's factory gets those of `num_classes`, `size`, `mean` and `std` that it has parameters for, and
        its network takes images in [0, 1]. One with `**kwargs` gets `num_classes` in any case, which is what
        most networks that it may hand them on to take. Those of libraries are given normalised images.

        Raises:
            InputError: for a factory that fails or makes no module, and for a `norm`.
        """
        if norm != OWN:
            raise InputError(f"`norm` is for dpbench's networks, and {self.name} has its own: leave it out.")
        library, _, kind = self.name.partition(":")
        try:
            if library == "torchvision":
                return _normalised(_torchvision(self.function, num_classes, size), mean, std)
            if library == "timm":
                return _normalised(_timm(self.function, kind, num_classes, size), mean, std)
            if library == "transformers":
                return _normalised(_transformers(self.function, num_classes, size, len(mean)), mean, std)
            known = {"num_classes": num_classes, "size": size, "mean": mean, "std": std}
            taken = inspect.signature(self.function).parameters
            names = {*taken, *("num_classes" for each in taken.values() if each.kind is each.VAR_KEYWORD)}
            found = self.function(**{name: value for name, value in known.items() if name in names})
        except (Exception, SystemExit) as error:  # whatever its author got wrong
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise InputError(f"The model {self.name} cannot be made ({reason}).") from error
        if not isinstance(found, nn.Module):
            raise InputError(f"{self.name} must return a torch.nn.Module, not {type(found).__name__}.")
        return found


@cache
def factory(model: str) -> Factory:
    """The factory behind `module:factory`, `file.py:factory`, or `LIBRARY:NAME` of one of `LIBRARIES`.

    Raises:
        InputError: where there is none.

    Example:
        >>> factory("torchvision:resnet18").function.__name__
        'resnet18'
        >>> factory("torchvision:resnet17")
        Traceback (most recent call last):
        ...
        dpbench.protocol.errors.InputError: torchvision has no classifier 'resnet17' (did you mean \
'resnet18'?).
    """
    home, _, name = model.rpartition(":")
    if home in LIBRARIES:
        if find_spec(home) is None:
            raise InputError(f"The model {model} needs {home}: pip install {home}.")
        return Factory(model, _maker(home, name))
    found: Any = imported(home, "model")
    for part in name.split("."):
        found = getattr(found, part, None)
    if not callable(found):
        raise InputError(f"{home} has no function or class {name!r} that makes the model.")
    return Factory(model, found)


def _maker(library: str, name: str) -> Callable[..., nn.Module]:
    try:
        found = import_module(library)
    except ImportError as error:  # installed, and something that it needs is not
        reason = " ".join(str(error).split())
        raise InputError(f"{library} cannot be imported ({reason}): install it again.") from error
    if library == "torchvision":
        names = found.models.list_models(module=found.models)
        if name in names:
            return found.models.get_model_builder(name)
    elif library == "timm":
        names = found.list_models()
        if name in names:
            return found.create_model
    else:
        names = [each for each in dir(found) if each.endswith("ForImageClassification")]
        if name in names:
            return getattr(found, name)
    raise InputError(f"{library} has no classifier {name!r}{meant(name, names)}.")


def _torchvision(builder: Callable[..., nn.Module], num_classes: int, size: int) -> nn.Module:
    sized = builder.__module__.endswith("vision_transformer")
    return builder(weights=None, num_classes=num_classes, **({"image_size": size} if sized else {}))


def _timm(create: Callable[..., nn.Module], name: str, num_classes: int, size: int) -> nn.Module:
    try:
        return create(name, num_classes=num_classes, img_size=size)
    except TypeError:  # a convolutional network takes images of any size
        return create(name, num_classes=num_classes)


def _transformers(kind: type[nn.Module], num_classes: int, size: int, channels: int) -> nn.Module:
    """The network of a class of transformers with its usual settings, for images of this size."""
    return kind(kind.config_class(num_labels=num_classes, image_size=size, num_channels=channels))


def _normalised(model: nn.Module, mean: Sequence[float], std: Sequence[float]) -> nn.Module:
    """`model` behind `Normalise`, under the names that its parameters have by themselves."""
    model.normalise = Normalise(mean, std)
    model.register_forward_pre_hook(_normalise)
    return model


def _normalise(model: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (model.normalise(inputs[0]), *inputs[1:])

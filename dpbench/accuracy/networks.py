"""The models that utility is measured with unless somebody brings an own one."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from dpbench.accuracy.scattering import scattered
from dpbench.accuracy.trial import Model
from dpbench.protocol import InputError
from dpbench.victim.layers import Normalise


def convnet_tanh(shape: Sequence[int], num_classes: int) -> nn.Module:
    """Two convolutions with tanh and max pooling, and a linear layer: 31,178 weights at 3 x 32 x 32.

    Bounded activations suffer less from clipping and noise than ReLU (Papernot et al. 2021), and a network
    without normalisation has per-sample gradients. It is small, so that one core trains it in minutes.

    Args:
        shape: [C, H, W] of an image in [0, 1], 8 pixels a side or more.
        num_classes: K.

    Raises:
        InputError: for another shape.
    """
    if len(shape) != 3 or min(shape[1:]) < 8:
        raise InputError(
            f"convnet-tanh takes images [C, H, W] of 8 pixels a side or more, not {list(shape)}: use a model "
            "of your own."
        )
    channels, places = shape[0], 1
    for side in shape[1:]:
        places *= -(-side // 2) // 4
    return nn.Sequential(
        Normalise((0.5,) * channels, (0.25,) * channels),  # public: pixels lie in [0, 1]
        nn.Conv2d(channels, 32, 5, stride=2, padding=2),
        nn.Tanh(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1),
        nn.Tanh(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(64 * places, num_classes),
    )


def linear(shape: Sequence[int], num_classes: int) -> nn.Module:
    """A linear layer that starts at zero.

    Args:
        shape: [F] of the features.
        num_classes: K.
    """
    layer = nn.Linear(shape[0], num_classes)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


MODELS = {
    each.name: each
    for each in (
        Model("convnet-tanh", convnet_tanh, 2e-3, 2e-3),
        Model("scattering-linear", linear, 5e-4, 1e-4, scattered),
    )
}
"""By name. How the learning rates were chosen: docs/utility.md."""


def named(name: str) -> Model:
    """The model of that name.

    Raises:
        InputError: for an unknown one.
    """
    if name not in MODELS:
        raise InputError(f"Unknown model {name!r} for utility; known: {', '.join(MODELS)}.")
    return MODELS[name]

"""Networks trained on public images: generators that an attack can search, and a denoiser.

A generator gives `generator(z, y)` -> images, differentiable in both.

A generator is a module with attributes `latent_dim`, `num_classes` and `image_shape` (3, H, W). It takes
`z` [B, latent_dim], standard normal, and class weights `y` [B, num_classes], one-hot or soft, so that the
class can be searched too; it gives [B, 3, H, W] in [0, 1]. It is deterministic, and no image depends on the
others of its batch.
"""

from __future__ import annotations

import os

from torch import nn

from dpbench.generators import conv
from dpbench.generators.conv import ConvGenerator
from dpbench.generators.denoiser import Denoiser, load_denoiser
from dpbench.generators.registry import generator, generators
from dpbench.protocol import InputError
from dpbench.system.paths import expanded

# isort: off
# each registers its generator, in the order in which messages list them
from dpbench.generators import cifar10
from dpbench.generators import biggan
# isort: on

__all__ = [
    "ConvGenerator",
    "Denoiser",
    "biggan",
    "cifar10",
    "generator",
    "generators",
    "load_denoiser",
    "load_generator",
]


def load_generator(spec: str, *, num_classes: int, size: int) -> nn.Module:
    """The generator that `spec` names, for a victim of `num_classes` and `size` x `size` images.

    Args:
        spec: one of `generators` (`cifar10`, `biggan`), with what it needs after a colon
            (`biggan:FOLDER`), or a file of weights that `scripts/train_generator.py` wrote.
        num_classes: K of the victim.
        size: height and width of the victim's images, pixels.

    Returns:
        The generator on the CPU, in float32 and evaluation mode, its weights frozen.

    Raises:
        InputError: for an unknown generator, weights that cannot be used, or one that makes images of another
            size or knows another number of classes.

    Example:
        >>> load_generator("cifar10", num_classes=10, size=32).image_shape
        (3, 32, 32)
    """
    name, _, where = spec.partition(":")
    if name in generators:
        found = generators[name](where, size)
    elif os.path.isfile(file := expanded(spec)):
        found = conv.from_file(file)
    else:
        raise InputError(
            f"There is no generator {spec!r}: give {', '.join(generators)} or a file that "
            "scripts/train_generator.py wrote."
        )
    height, width = found.image_shape[1:]
    if (height, width) != (size, size):
        raise InputError(
            f"The generator {spec} makes images of {height}x{width} and the victim takes {size}x{size}: use "
            f"another generator or --image-size {height}."
        )
    if found.num_classes != num_classes:
        raise InputError(
            f"The generator {spec} knows {found.num_classes} classes and the victim {num_classes}: use a "
            "generator of the same classes."
        )
    return found.float().eval().requires_grad_(False)

"""One image from a residual network with global average pooling: from features that are solved for."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attacks.base import channel_statistics
from attacks.engine.variables import Frequencies
from attacks.exact.newton import least_squares
from attacks.exact.places import of_made_up_images, pattern
from attacks.exact.residual import Block, Level, descend, head, outputs
from dpbench.protocol import Knowledge

STARTS = 4096
"""Most starts of the search for the places of the last feature map."""


@dataclass(frozen=True)
class Found:
    """An image, and what it was searched for from.

    Attributes:
        image: float64 [1, C, H, W] in [0, 1], on the CPU.
        again: searches once more, from another such image.
        block: name of the block whose features were solved for.
        value: what is left of the least squares.
    """

    image: Tensor
    again: Callable[[Tensor], Tensor]
    block: str
    value: float


def image(
    knowledge: Knowledge,
    blocks: tuple[Block, ...],
    gradients: Mapping[str, Tensor],
    generator: torch.Generator,
    start: Tensor,
    iterations: int,
    progress: Callable[[int, float], None],
) -> tuple[Found | None, str]:
    """The image, or None and why there is none, as a clause.

    Args:
        knowledge: of a model that `residual.read` has read.
        blocks: what it read.
        gradients: released, by name; float64 on the CPU.
        generator: on the CPU.
        start: float64 [1, C, H, W], image to set out from.
        iterations: conjugate gradients of the search, see `least_squares`.
        progress: likewise.
    """
    last, (name, fc) = blocks[-1].second, head(knowledge.model)
    if not {f"{name}.bias", f"{last.layer.name}.weight"} <= gradients.keys():
        return None, "the gradients of the last block and of the last layer's bias were not released"
    height, width = last.layer.output_shape[1:]
    weight = fc.weight.detach().double().cpu()
    evenly = weight.T @ gradients[f"{name}.bias"] / (height * width)
    propose, statistics = None, knowledge.image_statistics
    if statistics is not None and tuple(statistics.mean_image.shape) == knowledge.image_shape:
        propose = of_made_up_images(knowledge, last.layer, generator)
    active = pattern(
        last.layer,
        gradients[f"{last.layer.name}.weight"],
        evenly * last.gain.flatten(),
        generator,
        STARTS,
        propose,
    )
    if active is None:
        return None, "the places of the last block's features could not be told apart"
    level = descend(blocks, evenly[:, None, None] * active, gradients)
    if level is None:
        return None, "the last block's gradients do not decide its features"
    left: list[float] = []

    def noted(done: int, value: float) -> None:
        left.append(value)
        progress(done, value)

    found = searched(knowledge, level, start, iterations, noted)
    again = lambda near: searched(knowledge, level, near, iterations, lambda *_: None)  # noqa: E731
    return Found(found, again, level.block.name, left[-1]), ""


def searched(
    knowledge: Knowledge,
    level: Level,
    start: Tensor,
    iterations: int,
    progress: Callable[[int, float], None],
) -> Tensor:
    """An image float64 [1, C, H, W] in [0, 1] with the features of `level`.

    What a ReLU took has to fit where it was on, and must not exceed zero where it was off. The variables are
    cosine coefficients, as in `pixels`.

    Args:
        knowledge: its model and channel statistics.
        level: of one of the model's blocks.
        start: like the image.
        iterations: see `least_squares`.
        progress: likewise.
    """
    model = copy.deepcopy(knowledge.model).double().cpu()
    model.get_submodule(level.block.name).register_forward_pre_hook(_reach)
    mean, std = channel_statistics(knowledge, start)
    variables = Frequencies(knowledge.mean, knowledge.std, *knowledge.image_shape[1:]).to(start)

    def images(point: Tensor) -> Tensor:
        return variables([point]) * std + mean

    def residuals(point: Tensor) -> Tensor:
        try:
            model(images(point))
        except _ReachedError as reached:
            inner, outer = outputs(level.block, reached.features)
        wanted = [(inner, level.inner)] + ([(outer, level.outer)] if level.outer is not None else [])
        return torch.cat([_misfit(found[0], target) for found, target in wanted])

    found = least_squares(residuals, variables.inverse((start - mean) / std), iterations, progress)
    return images(found).detach().clamp(0, 1)


def _misfit(found: Tensor, wanted: Tensor) -> Tensor:
    return (torch.where(wanted > 0, found - wanted, F.relu(found)) / wanted.norm()).flatten()


class _ReachedError(Exception):
    """The model has come to the block; the rest need not be computed."""

    def __init__(self, features: Tensor) -> None:
        super().__init__()
        self.features = features


def _reach(module: nn.Module, given: tuple[Tensor, ...]) -> None:
    raise _ReachedError(given[0])

"""Dense features of images from a middle layer of the public victim."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dpbench.protocol import InputError

Features = Callable[[Tensor], Tensor]
"""Images [N, C, H, W] in [0, 1] -> feature maps [N, D, h, w]."""
COARSEST = 8
"""Pixels per feature, at most."""


class _Reached(Exception):  # noqa: N818 (no error: it ends the forward pass)
    """Ends the forward pass once the layer has its output; later layers need not fit the image's size."""


def network_features(model: nn.Module, image_shape: tuple[int, int, int]) -> Features:
    """The output of the deepest layer that still resolves where things are.

    That is the last layer to finish among those whose maps have at least an eighth of the image's height
    and width; blocks of layers are preferred to single layers. In a ResNet it is `layer2` or `layer3`. The
    forward pass ends there, so images may have any size. For a network that takes its own size only, such as
    a vision transformer, images are resized to that and the maps back.

    Args:
        model: takes images in [0, 1]; it is copied and stays as it is.
        image_shape: (C, H, W) that the model is made for.

    Returns:
        Images [N, C, H, W] on the model's device -> maps [N, D, h, w]; without gradients.

    Raises:
        InputError: where no layer has such a map.
    """
    model = copy.deepcopy(model).eval()
    finished: list[tuple[str, bool]] = []

    def note(name: str, block: bool) -> Callable[[nn.Module, Any, Any], None]:
        def hook(_: nn.Module, __: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.ndim == 4 and _fine_enough(output, image_shape):
                finished.append((name, block))

        return hook

    hooks = [
        module.register_forward_hook(note(name, any(True for _ in module.children())))
        for name, module in model.named_modules()
    ]
    with torch.no_grad():
        model(torch.zeros(1, *image_shape, device=next(model.parameters()).device))
    for hook in hooks:
        hook.remove()
    blocks = [name for name, block in finished if block] or [name for name, _ in finished]
    if not blocks:
        raise InputError(
            f"No layer of {type(model).__name__} has a map of an eighth of the image's size to register by: "
            "use `terms` lazy, the plain mean of the seeds."
        )

    def end(_: nn.Module, __: Any, output: Tensor) -> None:
        reached.append(output)
        raise _Reached

    reached: list[Tensor] = []
    model.get_submodule(blocks[-1]).register_forward_hook(end)

    @torch.no_grad()
    def features(images: Tensor) -> Tensor:
        reached.clear()
        with suppress(_Reached):
            model(images)
        return reached.pop()

    own, device = image_shape[1:], next(model.parameters()).device
    try:
        features(torch.zeros(1, image_shape[0], *(2 * side for side in own), device=device))
    except (AssertionError, RuntimeError, ValueError):  # each network refuses in its own way
        return lambda images: _at_own_size(features, images, own)
    return features


def _at_own_size(features: Features, images: Tensor, own: tuple[int, int]) -> Tensor:
    """The maps of images of any size by features that take one size; a finer image gives a smoother map."""
    resized = F.interpolate(images, own, mode="bicubic", antialias=True).clamp(0, 1)
    maps = features(resized)
    size = [
        round(cells * side / whole)
        for cells, side, whole in zip(maps.shape[2:], images.shape[2:], own, strict=True)
    ]
    return F.interpolate(maps, size, mode="bilinear")


def _fine_enough(output: Tensor, image_shape: tuple[int, int, int]) -> bool:
    return all(
        COARSEST * side >= whole for side, whole in zip(output.shape[2:], image_shape[1:], strict=True)
    )

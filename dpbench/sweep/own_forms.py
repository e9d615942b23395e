"""Grey or in colour, a picture or a signal: in which form a model takes the inputs it is given."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from dpbench.protocol import InputError
from dpbench.victim.fitting import run

Form = Callable[[Tensor], Tensor]
"""Inputs as they were given -> as the model takes them."""


def as_given(images: Tensor) -> Tensor:
    """The inputs themselves."""
    return images


def one_channel(images: Tensor) -> Tensor:
    """Grey pictures [B, 1, H, W] of [B, H, W], or of [B, C, H, W] whose channels are equal."""
    return images[:, None] if images.ndim == 3 else images[:, :1]


def three_channels(images: Tensor) -> Tensor:
    """Grey pictures with their one channel repeated, [B, 3, H, W]."""
    return one_channel(images).repeat(1, 3, 1, 1)


def form_for(model: nn.Module, images: Tensor) -> Form:
    """The first form of these inputs that the model takes.

    Grey pictures have one channel, or three equal ones for a model of colour pictures. What is [B, H, W] is
    taken for grey pictures first, then for signals or sequences.

    Args:
        model: as it is.
        images: a batch of `own_arrays.as_inputs`.

    Raises:
        InputError: where it takes none.

    Example:
        >>> import torch
        >>> form_for(nn.Conv2d(3, 1, 3), torch.rand(2, 8, 8)).__name__
        'three_channels'
    """
    forms = _forms(images)
    refusals = []
    for form in forms:
        try:
            run(model, form(images))
        except InputError as refusal:
            refusals.append(refusal)
        else:
            return form
    raise refusals[0]


def _forms(images: Tensor) -> tuple[Form, ...]:
    if images.ndim == 3:
        return one_channel, three_channels, as_given
    if images.ndim == 4 and images.shape[1] == 1:
        return as_given, three_channels
    if images.ndim == 4 and bool((images == images[:, :1]).all()):
        return as_given, one_channel
    return (as_given,)

"""The denoiser that an attacker is told, for attacks that use one."""

from __future__ import annotations

from torch import nn

from dpbench.protocol import InputError, Knowledge


def denoiser_of(knowledge: Knowledge, instead: str) -> nn.Module:
    """The denoiser that an attacker is told.

    Args:
        knowledge: with `image_denoiser`.
        instead: the parameter and the value to use where there is none.

    Raises:
        InputError: where there is none.
    """
    if knowledge.image_denoiser is None:
        raise InputError(
            f"There is no denoiser for images of shape {knowledge.image_shape}, only for colour images of "
            f"32 x 32: use {instead}."
        )
    return knowledge.image_denoiser

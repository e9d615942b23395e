"""Images that lead to the known outputs of a convolution, searched for by Gauss-Newton."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from attacks.base import channel_statistics
from attacks.engine.variables import Frequencies
from attacks.exact.descent import Level, affine, moved
from attacks.exact.inputs import LARGEST, correlations
from attacks.exact.layers import Chain, Layer
from attacks.exact.newton import least_squares
from dpbench.protocol import Knowledge

CUT = 1e-4
"""Equations of the weight gradient are kept down to this share of the strongest: below is rounding."""


def searched(
    chain: Chain,
    level: Level,
    knowledge: Knowledge,
    start: Tensor,
    iterations: int,
    progress: Callable[[int, float], None],
) -> Tensor:
    """Images float32 [r, C, H, W], not clamped, that explain a level.

    What has to fit: the layer's outputs where ReLU is on, none above zero where it is off, and what the
    layer's weight gradient tells of its inputs. The gradients of the layers below are left out: they jump
    wherever a ReLU switches. The variables are cosine coefficients, so that few conjugate gradients give the
    smoothest images that fit.

    Args:
        chain: what the model does.
        level: which outputs are known.
        knowledge: its channel statistics.
        start: [r, C, H, W], images to set out from.
        iterations: see `least_squares`.
        progress: likewise.
    """
    mean, std = channel_statistics(knowledge, start)
    variables = Frequencies(knowledge.mean, knowledge.std, *knowledge.image_shape[1:]).to(start)
    layers = [moved(block.layer, start) for block in chain.blocks[: level.index + 1]]
    maps = [affine(block, start) for block in chain.blocks[: level.index + 1]]
    told = _told(level, layers[-1], start)
    outputs, active = level.outputs.to(start), level.active
    size = torch.where(active, outputs, 0).norm()

    def images(point: Tensor) -> Tensor:
        return variables([point]) * std + mean

    def residuals(point: Tensor) -> Tensor:
        x = images(point)
        for each in chain.head:
            gain, offset = (values.to(x).view(x.shape[1:]) for values in (each.gain, each.offset))
            x = x * gain + offset
        for layer, (gain, offset) in zip(layers[:-1], maps[:-1], strict=True):
            x = F.relu(layer(x) * gain + offset)
        z, (gain, offset) = layers[-1](x), maps[-1]
        left = torch.where(active, z - outputs, F.relu(z * gain + offset)) / size
        if told is None:
            return left.flatten()
        rows, values = told
        known = rows @ x.permute(0, 2, 3, 1).flatten(0, 2)
        return torch.cat([left.flatten(), ((known - values) / values.norm()).flatten()])

    found = least_squares(residuals, variables.inverse((start - mean) / std), iterations, progress)
    return images(found)


def _told(level: Level, layer: Layer, like: Tensor) -> tuple[Tensor, Tensor] | None:
    """What the weight gradient tells of the inputs [N * H * W, C]: orthonormal rows, and their values.

    None where the matrix of these equations would be too large.
    """
    if len(level.delta) * layer.input_shape[1] * layer.input_shape[2] > LARGEST:
        return None
    matrix = correlations(layer, level.delta)
    left, singular, right = torch.linalg.svd(matrix, full_matrices=False)
    kept = singular > CUT * singular[0]
    gradient = level.gradient.permute(0, 2, 3, 1).reshape(len(matrix), -1)
    values = (left[:, kept].T @ gradient) / singular[kept][:, None]
    return right[kept].to(like), values.to(like)

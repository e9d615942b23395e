"""What a convolution took from each image of a batch, solved for from its weight gradient."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from attacks.exact.layers import Layer

LARGEST = 4096
"""Unknowns that are solved for at a time, at most: the matrices are dense."""
SURPLUS = 1.2
"""Forward equations for each unknown, at least."""


def inputs(layer: Layer, delta: Tensor, gradient: Tensor, outputs: Tensor, active: Tensor) -> Tensor | None:
    """The layer's inputs [N, C, H, W]; None where the equations do not decide them.

    The weight gradient is linear in the inputs, with the same coefficients for each input channel. Where
    there are too few of these equations, known outputs decide the rest.

    Args:
        layer: without groups.
        delta: float64 [N, O, h, w], the loss gradient of the outputs.
        gradient: [O, C, kh, kw], of the weight.
        outputs: [N, O, h, w], known where `active`.
        active: bool, likewise.
    """
    channels, height, width = layer.input_shape
    if len(delta) * height * width > LARGEST:
        return None
    matrix = correlations(layer, delta)
    values = gradient.double().permute(0, 2, 3, 1).reshape(len(matrix), channels)
    left, singular, right = torch.linalg.svd(matrix, full_matrices=False)
    kept = singular > 1e-6 * singular[0]
    found = right[kept].T @ ((left[:, kept].T @ values) / singular[kept][:, None])
    missing = matrix.shape[1] - int(kept.sum())
    shape = (len(delta), height, width, channels)
    if not missing:
        return found.view(shape).permute(0, 3, 1, 2)
    if missing * channels > min(LARGEST, int(active.sum()) / SURPLUS):
        return None
    null = torch.linalg.svd(right[kept])[2][-missing:]
    left_over = (outputs - layer(found.view(shape).permute(0, 3, 1, 2)))[active]
    responses = _responses(layer, null, active)
    try:
        weights = torch.linalg.lstsq(responses, left_over[:, None], driver="gels").solution
    except torch.linalg.LinAlgError:  # no output sees some of the unknowns
        return None
    if not bool(weights.isfinite().all()):  # a graphics card does not raise
        return None
    found = found + null.T @ weights.view(missing, channels)
    return found.view(shape).permute(0, 3, 1, 2)


def correlations(layer: Layer, delta: Tensor) -> Tensor:
    """[O * kh * kw, N * H * W]: how much of each input pixel is in each weight's gradient."""
    taps, (_, height, width) = layer.taps().to(delta.device), layer.input_shape
    samples, rows = delta.shape[:2]
    matrix = delta.new_zeros(rows, len(taps), samples, height * width + 1)  # the last one is padding
    for tap, pixels in enumerate(taps):
        matrix[:, tap].index_add_(2, pixels, delta.flatten(2).transpose(0, 1))
    return matrix[..., :-1].reshape(rows * len(taps), samples * height * width)


def _responses(layer: Layer, null: Tensor, active: Tensor) -> Tensor:
    """[active outputs, null vectors * C]: what each vector, put into each channel, adds to the outputs."""
    channels, height, width = layer.input_shape
    images = null.reshape(-1, 1, height, width)
    kernels = layer.weight.to(null).transpose(0, 1).reshape(-1, 1, *layer.weight.shape[2:])
    out = F.conv2d(F.pad(images, layer.padding), kernels, None, layer.stride, 0, layer.dilation)
    out = out.view(len(null), len(active), channels, *active.shape[1:])
    return out.transpose(1, 2).flatten(0, 1)[:, active].T

"""From the last layer's samples down a chain of convolutions, as far as equations decide the inputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from attacks.exact.candidates import without_errors
from attacks.exact.inputs import inputs
from attacks.exact.last_layer import Samples
from attacks.exact.layers import Affine, Block, Chain, Layer

WRONG = 0.05
"""Share of the largest input: an input below minus that shows that the inputs are wrong."""
SMALL = 1e-3
"""Share of the largest output below which an output may be a zero, or a zero may be an output."""
VISIBLE = 1e-6
"""Share of a channel's bias gradient above which an error is no rounding error."""
MATCH = 1e-2
"""Share of such an error that one unit may leave of it and be the cause."""


@dataclass(frozen=True)
class Level:
    """A convolution whose outputs are known.

    Attributes:
        index: of its block in the chain.
        outputs: float64 [r, O, h, w], before anything behind the layer, known where `active`.
        active: bool, likewise: where ReLU is on.
        delta: [r, O, h, w], the outputs' loss gradient, as much of it as is in the mean.
        gradient: [O, C, kh, kw], of its weight.
    """

    index: int
    outputs: Tensor
    active: Tensor
    delta: Tensor
    gradient: Tensor


def fits(chain: Chain, last: str) -> bool:
    """Whether the model is convolutions with ReLU up to a fully connected layer of the name `last`.

    What follows on that layer plays no role: its outputs' loss gradients are known.
    """
    if len(chain.blocks) < 2 or not all(isinstance(each, Affine) for each in chain.head):
        return False
    *blocks, end = chain.blocks
    right = end.layer.name == last and end.layer.dense and not end.pointwise
    return right and all(_is_plain(block) for block in blocks)


def descend(chain: Chain, samples: Samples, gradients: Mapping[str, Tensor]) -> Level:
    """The lowest layer whose outputs could be solved for; `chain` has to fit."""
    outputs = samples.features.unflatten(1, chain.blocks[-2].layer.output_shape)
    weight = chain.blocks[-1].layer.weight[:, :, 0, 0].to(outputs)
    delta = (samples.deltas @ weight).view_as(outputs)
    index = len(chain.blocks) - 2
    while True:
        layer = moved(chain.blocks[index].layer, outputs)
        active = outputs > 0
        gain, offset = affine(chain.blocks[index], outputs)
        if (bias := gradients.get(f"{layer.name}.bias")) is not None:
            active = corrected(active, outputs, delta * gain, bias.double())
        delta = torch.where(active, delta * gain, 0)
        outputs = (outputs - offset) / gain
        level = Level(index, outputs, active, delta, gradients[f"{layer.name}.weight"].double())
        if index == 0:
            return level
        found = inputs(layer, delta, level.gradient, outputs, active)
        if found is None or found.min() < -WRONG * found.max():
            return level
        outputs, delta, index = without_errors(found), layer.transposed(delta), index - 1


def corrected(active: Tensor, outputs: Tensor, delta: Tensor, bias: Tensor) -> Tensor:
    """`active` with single units switched on or off where that makes a channel's bias gradient right.

    An output just above zero may have been taken for zero, or the other way round. The bias gradient of a
    channel is the sum of `delta` over its active units, so the error in it is the delta of that unit.

    Args:
        active: bool [N, O, h, w].
        outputs: [N, O, h, w], not negative.
        delta: likewise, the loss gradient were all units active.
        bias: [O].
    """
    active = active.clone()
    wrong = bias - torch.where(active, delta, 0).sum((0, 2, 3))
    sizes = torch.where(active, delta, 0).abs().sum((0, 2, 3)).clamp_min(torch.finfo(delta.dtype).tiny)
    doubtful = outputs < SMALL * outputs.max()
    for channel in (wrong.abs() > VISIBLE * sizes).nonzero().flatten().tolist():
        change = torch.where(active[:, channel], -delta[:, channel], delta[:, channel])
        left = torch.where(doubtful[:, channel], (wrong[channel] - change).abs(), torch.inf)
        best = left.argmin()
        if left.flatten()[best] < MATCH * wrong[channel].abs():
            switched = active[:, channel].flatten().clone()  # of a single sample it is a view
            switched[best] = ~switched[best]
            active[:, channel] = switched.view_as(active[:, channel])
    return active


def _is_plain(block: Block) -> bool:
    """A trained convolution without groups, then affine maps if any, then ReLU."""
    *maps, end = block.pointwise or (None,)
    relu = getattr(end, "kind", "") == "relu"
    layer = block.layer
    plain = layer.trained and not layer.dense and layer.groups == 1
    return plain and relu and all(isinstance(each, Affine) for each in maps)


def affine(block: Block, like: Tensor) -> tuple[Tensor, Tensor]:
    """Gain and offset [O, h, w] between the layer and ReLU, on the device and in the dtype of `like`."""
    shape = block.layer.output_shape
    gain, offset = like.new_ones(shape), like.new_zeros(shape)
    for each in block.pointwise[:-1]:
        more, shift = (values.to(like).view(shape) for values in (each.gain, each.offset))
        gain, offset = gain * more, offset * more + shift
    return gain, offset


def moved(layer: Layer, like: Tensor) -> Layer:
    """The layer with its weights on the device and in the dtype of `like`."""
    bias = None if layer.bias is None else layer.bias.to(like)
    return replace(layer, weight=layer.weight.to(like), bias=bias)

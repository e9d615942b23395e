"""What lies before a ReLU of which the next layer's gradient hides units, as under the defence `soteria`.

The bias gradient of channel o is the sum of delta over its active units. The deltas behind the ReLU are
known, so it is a subset sum: of the 2^n sets of n hidden units few have that sum, mostly one. The weight
gradients of channels with one such set decide what the layer took, and that decides which units were active.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from attacks.exact.layers import Affine, Block
from attacks.exact.solve import Estimate, inputs

MOST = 16
"""Hidden units of a channel whose sets are gone through, at most."""
EQUAL = 1e-6
"""Share of a channel's summed |delta| up to which a sum is right: rounding errors are a tenth of it."""


def readable(block: Block) -> bool:
    """Whether `undone` takes a layer and what is behind it: a ReLU, and maps of each value before it."""
    *maps, end = block.pointwise or (None,)
    return getattr(end, "kind", "") == "relu" and all(isinstance(each, Affine) for each in maps)


def undone(
    block: Block, after: Estimate, hidden: Tensor, delta: Tensor, gradients: Mapping[str, Tensor]
) -> tuple[Estimate, Tensor] | None:
    """What lies before the ReLU behind a layer, and the loss gradient there; None where no set is sure.

    Args:
        block: a `readable` one.
        after: what lies behind the ReLU, [values].
        hidden: bool [values], units of which nothing is seen; all others were active.
        delta: the loss gradient behind the ReLU, [values].
        gradients: by name; that of the layer's bias is needed.
    """
    layer = block.layer
    gain, offset = torch.ones_like(delta), torch.zeros_like(delta)
    for each in block.pointwise[:-1]:
        gain, offset = gain * each.gain, offset * each.gain + each.offset
    weight, total = gradients[f"{layer.name}.weight"], gradients.get(f"{layer.name}.bias")
    if total is None:
        return None
    shape = len(total), -1
    sent = delta * gain
    active, sure = summing(sent.view(shape), ~hidden.view(shape), total)
    if not bool(sure.any()):
        return None
    part = replace(
        layer,
        weight=layer.weight[sure],
        bias=None if layer.bias is None else layer.bias[sure],
        output_shape=(int(sure.sum()), *layer.output_shape[1:]),
    )
    passed = (sent.view(shape) * active)[sure].flatten()
    nothing = Estimate(torch.zeros_like(passed), torch.full_like(passed, torch.inf))
    taken = inputs(part, passed, weight.view(layer.weight.shape)[sure], nothing)
    outputs = layer(taken.values.view(1, *layer.input_shape)).flatten()
    on = outputs * gain + offset > 0
    seen = on & ~hidden
    values = torch.where(seen, (after.values - offset) / gain, 0.0)
    deviations = torch.where(seen, after.deviations / gain.abs(), torch.inf)
    return Estimate(values, deviations, ~on), sent * on


def summing(delta: Tensor, seen: Tensor, total: Tensor) -> tuple[Tensor, Tensor]:
    """Active units [O, places], and the channels [O] in which only one set of them has the right sum.

    Args:
        delta: loss gradient of each unit, were it active, [O, places].
        seen: bool, likewise: units that are known to be active.
        total: sum over the active units, [O].
    """
    active, sure = seen.clone(), torch.zeros(len(delta), dtype=torch.bool)
    size, left = delta.abs().sum(1), total - torch.where(seen, delta, 0.0).sum(1)
    for channel in range(len(delta)):
        places = (~seen[channel]).nonzero().flatten()
        if len(places) > MOST:
            continue
        sets = (torch.arange(2 ** len(places))[:, None] >> torch.arange(len(places))) & 1
        sums = sets.to(delta) @ delta[channel, places]
        right = ((sums - left[channel]).abs() <= EQUAL * size[channel]).nonzero().flatten()
        if len(right) == 1:
            active[channel, places] = sets[right[0]].bool()
            sure[channel] = True
    return active, sure

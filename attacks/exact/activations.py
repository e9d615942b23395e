"""What lies before an activation function, from what lies behind it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from attacks.exact.layers import Activation, Affine, Pointwise
from attacks.exact.solve import ROUNDING, Estimate

NEGLIGIBLE = 1e-7
"""Share of a channel's summed |delta| below which the bias gradient says nothing about a unit."""
DOUBT = 3.0
"""A value may be wrong by so many times the worst error that is seen."""
FEWEST = 5.0
"""Standard deviations within which a value's sign is in doubt, at least."""


def undone(
    steps: Sequence[Pointwise], after: Estimate, delta: Tensor, total: Tensor | None
) -> tuple[Estimate, Tensor]:
    """What lies before `steps`, and the loss gradient there.

    Args:
        steps: in the order in which the model takes them.
        after: what lies behind them, [values].
        delta: the loss gradient there, [values].
        total: gradient of the bias of the layer before the steps, [O]; None where it has none.
    """
    for i in reversed(range(len(steps))):
        step, before = steps[i], steps[:i]
        if isinstance(step, Affine):
            bound = None if after.bound is None else after.bound & (step.gain > 0)
            values, deviations = (after.values - step.offset) / step.gain, after.deviations / step.gain.abs()
            after = Estimate(values, deviations, bound, after.believed)
            delta = delta * step.gain
        elif step.kind in ("sigmoid", "tanh"):
            after, delta = _smooth(step.kind, after, delta)
        else:
            known = all(isinstance(other, Affine) for other in before)
            gain = torch.ones_like(delta)
            for other in before if known else ():
                gain = gain * other.gain
            after, delta = _rectified(step, after, delta, gain, total if known else None)
    return after, delta


def _smooth(kind: str, after: Estimate, delta: Tensor) -> tuple[Estimate, Tensor]:
    """Before a sigmoid or a hyperbolic tangent; values outside its range count as unknown."""
    low, slope = (0.0, lambda v: v * (1 - v)) if kind == "sigmoid" else (-1.0, lambda v: 1 - v.square())
    inside = (after.values > low) & (after.values < 1)
    values = torch.where(inside, after.values, (low + 1) / 2)
    before = values.logit() if kind == "sigmoid" else values.atanh()
    deviations = torch.where(inside, after.deviations / slope(values), torch.inf)
    return Estimate(before, deviations), delta * torch.where(inside, slope(values), 0.0)


def _rectified(
    step: Activation, after: Estimate, delta: Tensor, gain: Tensor, total: Tensor | None
) -> tuple[Estimate, Tensor]:
    """Before a ReLU or leaky ReLU."""
    channels = 1 if total is None else len(total)
    values, deviations, delta, gain = (
        x.view(channels, -1) for x in (after.values, after.deviations, delta, gain)
    )
    deviations = deviations.clamp_min(ROUNDING * values.square().mean().sqrt())
    doubt = FEWEST
    if step.slope == 0 and bool((values < 0).any()):  # there are no such values, so they show the errors
        errors = -(values / deviations)[values < 0]
        deviations = deviations * errors.square().mean().sqrt().clamp_min(1)
        doubt = max(FEWEST, DOUBT * float(-(values / deviations).min()))
    certainty = values / deviations
    if total is None:
        active = certainty > doubt if step.slope == 0 else values > 0
    else:
        active = _summing(certainty, delta * gain, step.slope, total, doubt)
    slopes = torch.where(active, 1.0, step.slope).to(values.dtype)
    passed = delta * slopes
    unknown = slopes == 0
    if step.slope == 0:
        share = NEGLIGIBLE * delta.abs().sum(1, keepdim=True)
        unknown = unknown | ((certainty.abs() < doubt) & (delta.abs() <= share))
    divisor = torch.where(unknown, 1.0, slopes)
    deviations = torch.where(unknown, torch.inf, deviations / divisor.abs())
    values = torch.where(slopes == 0, 0.0, values / divisor)
    before = Estimate(values.flatten(), deviations.flatten(), (slopes == 0).flatten())
    return before, passed.flatten()


def _summing(certainty: Tensor, delta: Tensor, slope: float, total: Tensor, doubt: float) -> Tensor:
    """Which units were active: those with the largest values, as many as the bias gradient asks for.

    The bias gradient of channel o is the sum over its places of delta behind the activation times its slope,
    so it tells apart units whose values are too small for their errors.

    Args:
        certainty: values in standard deviations of their errors, [O, places].
        delta: loss gradient behind the activation, times the gains before it, [O, places].
        slope: of inactive units.
        total: the bias gradient, [O].
        doubt: units nearer to zero than this are in doubt.
    """
    ordered, order = certainty.sort(dim=1, descending=True, stable=True)
    steps = (1 - slope) * delta.gather(1, order)
    sums = slope * delta.sum(1, keepdim=True) + torch.cat(
        [steps.new_zeros(len(steps), 1), steps.cumsum(1)], 1
    )
    size = delta.abs().sum(1, keepdim=True).clamp_min(torch.finfo(delta.dtype).tiny)
    missing = (sums - total[:, None]).abs() / size
    counts = torch.arange(sums.shape[1])
    fewest, most = ((ordered > bound).sum(1, keepdim=True) for bound in (doubt, -doubt))
    missing = torch.where((counts >= fewest) & (counts <= most), missing, torch.inf)
    equal = missing <= missing.min(1, keepdim=True).values + NEGLIGIBLE
    # among equals: few active units are as small as the errors, so as few as can be are meant after ReLU
    likely = fewest if slope == 0 else (ordered > 0).sum(1, keepdim=True)
    count = torch.where(equal, (counts - likely).abs(), sums.shape[1]).argmin(1, keepdim=True)
    return torch.zeros_like(delta, dtype=torch.bool).scatter(1, order, counts[:-1] < count)

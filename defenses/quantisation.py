"""Gradients of few bits: QSGD's stochastic rounding, and the sign alone."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from defenses.base import Gradients, PostProcessor, defense, read_shares
from dpbench.protocol import Reading, Release, parameter


@defense("quantize")
class Quantize(PostProcessor):
    """Every entry rounded at random to one of s levels, unbiased (QSGD, Alistarh et al. 2017, eq. 3 and 4).

    An entry v of a tensor with l2 norm n lies between two multiples of n / s. It goes to the upper one with
    the chance that leaves its mean where it was. Levels are of the whole tensor's l2 norm, as in QSGD's
    analysis; its experiments scale by the maximum, which rounds less.

    Attributes:
        quantize_bits: bits of an entry's magnitude, from 1 to 8: s = 2**bits - 1. The sign is on top.

    Raises:
        InputError: for a number of bits outside 1 to 8.
    """

    repeatable = True
    quantize_bits: int = parameter(
        4,
        "bits that quantize keeps of each entry's magnitude, beside its sign",
        symbol="bits",
        at_least=1,
        at_most=8,
    )

    def process(self, gradients: Gradients, generator: torch.Generator) -> Gradients:
        """The rounded gradients; a tensor of zeros stays as it is."""
        rounded, levels = [], 2**self.quantize_bits - 1
        for g in gradients:
            norm = g.norm().clamp_min(torch.finfo(g.dtype).tiny)
            place = g.abs() / norm * levels
            draw = torch.rand(g.shape, generator=generator, device=g.device, dtype=g.dtype)
            rounded.append(g.sign() * (place.floor() + (draw < place.frac())) * (norm / levels))
        return tuple(rounded)

    def log_likelihood(self, release: Release, gradients: Gradients) -> Tensor:
        """Of a release where the stage was given `gradients`, a float64 scalar.

        The chance of each entry's level; one that rounding cannot have led to counts as a chance of `NEVER`.
        """
        levels, found = 2**self.quantize_bits - 1, torch.zeros((), dtype=torch.float64)
        for sent, g in zip(release.gradients, gradients, strict=True):
            step = g.double().norm().clamp_min(torch.finfo(g.dtype).tiny) / levels
            level, place = sent.double() / step, g.double() / step
            exact = (level - level.round()).abs() < EXACT * level.abs().clamp_min(1)
            chance = torch.where(exact, 1 - (level - place).abs(), 0.0)
            found = found + chance.clamp_min(NEVER).log().sum().cpu()
        return found

    def read(self, release: Release) -> Reading:
        """All entries, under rounding noise of one variance for each tensor.

        Rounding is unbiased, so that on average it adds its variance to the squared norm. A tensor of which
        nothing but zeros were sent says nothing.
        """
        count, levels = len(release.each), 2**self.quantize_bits - 1
        shares, variances = [], []
        for same in zip(*release.each, strict=True):
            sent = [g for g in same if bool(g.any())]
            total = sum((rounding_variance(g, levels) for g in sent), same[0].new_zeros(()))
            shares.append(torch.full_like(same[0], len(sent) == count))
            variances.append((total / count**2).expand(same[0].shape))
        return replace(read_shares(release, shares), variances=tuple(variances))


NEVER = 1e-6
"""Chance of what cannot be but for rounding errors."""
EXACT = 1e-4
"""Relative error of a level to which it is one."""
FEW = 100
"""Entries of a tensor below which its squared norm tells too little of its rounding."""


def rounding_variance(rounded: Tensor, levels: int) -> Tensor:
    """Mean variance that rounding to `levels` levels of its norm put on the entries of a tensor, a scalar.

    The least distance of two values is that of two levels, which tells the norm; where a small tensor skipped
    levels, its own norm is closer. A tensor of `FEW` entries or
    more shows the variance in its squared norm; the entries of a smaller one are taken for normal.

    Example:
        >>> rounded = torch.tensor([2.0, 0.0, -2.0] + [0.0] * 97)  # of norm 2
        >>> rounding_variance(rounded, levels=1)
        tensor(0.0400)
    """
    sizes = rounded.abs().flatten().unique()
    if not bool(sizes[-1] > 0):
        return sizes[-1]
    step = torch.cat([sizes.new_zeros(1), sizes[sizes > 0]]).diff().min()
    step = torch.minimum(step, rounded.norm() / levels)
    if rounded.numel() >= FEW:
        excess = (rounded.square().sum() - (levels * step) ** 2) / rounded.numel()
        return torch.minimum(torch.maximum(excess, 1e-3 * step**2), step**2 / 4)
    quantiles = torch.special.ndtri(torch.arange(1, 200, device=sizes.device, dtype=sizes.dtype) / 200)
    places = quantiles.abs() * levels / math.sqrt(rounded.numel())
    return step**2 * (places.frac() * (1 - places.frac())).mean()


@defense("sign")
class Sign(PostProcessor):
    """The sign of every entry (signSGD, Bernstein et al. 2018); an entry that is zero stays zero.

    Attributes:
        sign_scale: `none`: +1 and -1; `mean`: times the mean magnitude of the tensor, which is its multiple
            of the signs closest to it (Karimireddy et al. 2019).

    Raises:
        InputError: for an unknown scale.

    Example:
        >>> Sign(sign_scale="mean").process((torch.tensor([1.0, -3.0]),), torch.Generator())
        (tensor([ 2., -2.]),)
    """

    sign_scale: Literal["none", "mean"] = parameter(
        "none", "what sign multiplies the signs of a tensor by", symbol="scale"
    )

    def process(self, gradients: Gradients, generator: torch.Generator) -> Gradients:
        """The signs; the generator is not used."""
        if self.sign_scale == "none":
            return tuple(g.sign() for g in gradients)
        return tuple(g.abs().mean() * g.sign() for g in gradients)

"""Gradients of few bits: QSGD's stochastic rounding, and the sign alone."""

from __future__ import annotations

from typing import Literal

import torch

from defenses.base import Gradients, PostProcessor, defense
from dpbench.protocol import parameter


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

"""A variational bottleneck before a classifier: part of the network, so defence and attack both know it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from dpbench.protocol.knowledge import Loss


class Bottleneck(nn.Module):
    """Features as random codes and back: a code is N(mean, deviation^2), both linear in the features.

    Alemi et al. 2017, "Deep Variational Information Bottleneck": the deviation is softplus(s - 5). Scheliga
    et al. 2022 decode the code to as many features as there were.

    Args:
        features: F.
        width: of the code.

    Attributes:
        shift: what is taken from s before the softplus, so that training begins with little noise.
        noise: [B, width], the standard normal draws of a forward pass of B samples. None, and any other
            number of samples, gives the means.
    """

    shift = 5.0

    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Linear(features, 2 * width), nn.Linear(width, features)
        self.register_buffer("noise", None, persistent=False)

    @property
    def width(self) -> int:
        """Entries of a code."""
        return self.decoder.in_features

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Decoded features [B, F], and the divergence of each code from N(0, I) in nats, [B]."""
        code, raw = self.encoder(features).chunk(2, -1)
        deviation = F.softplus(raw - self.shift)
        divergence = ((code.square() + deviation.square() - 1) / 2 - deviation.log()).sum(-1)
        return self.decoder(drawn(code, deviation, self.noise)), divergence


@fx.wrap
def drawn(mean: Tensor, deviation: Tensor, noise: Tensor | None) -> Tensor:
    """Codes [B, width]; the means where there is no noise, or that of another number of samples.

    In one piece for `torch.fx`, which cannot trace the choice.
    """
    return mean + deviation * noise if noise is not None and len(noise) == len(mean) else mean


class BottleneckHead(nn.Module):
    """A last layer behind a bottleneck.

    Args:
        linear: the last layer, which it takes over.
        width: of the code.
    """

    def __init__(self, linear: nn.Linear, width: int) -> None:
        super().__init__()
        self.bottleneck = Bottleneck(linear.in_features, width).to(linear.weight)
        self.linear = linear

    def forward(self, features: Tensor) -> Tensor:
        """Logits and, after them, each sample's divergence: [B, K + 1]."""
        decoded, divergence = self.bottleneck(features)
        return torch.cat([self.linear(decoded), divergence[..., None]], -1)


@dataclass(frozen=True)
class WithDivergence:
    """A loss of logits plus `weight` times the mean divergence, of what a network with such a head returns.

    Attributes:
        loss: mean-reduced.
        weight: of a nat.
    """

    loss: Loss
    weight: float

    def __call__(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Of outputs [B, K + 1] and labels [B] or [B, K]."""
        return self.loss(outputs[:, :-1], labels) + self.weight * outputs[:, -1].mean()


def bottleneck_head(model: nn.Module) -> tuple[str, BottleneckHead] | None:
    """The head with a bottleneck and its name in the model; None where there is none."""
    found = ((name, module) for name, module in model.named_modules() if isinstance(module, BottleneckHead))
    return next(found, None)

"""What a release gives away of the noise in a variational bottleneck (defence `precode`).

The encoder E is a fully connected layer: its weight gradient is D^T R, a row of R for each sample's features
and one of D for the loss gradient of the encoder's outputs, and its bias gradient is the sum of D's rows. For
one sample the two give R and D at once; of several, `sparsity` tells the rows of R apart where ReLU made
them. R gives the means and deviations of the codes, and the two halves of D then give the noise: with c the
loss gradient of a sample's code, beta the weight of the divergence and s what the deviation is computed from,

    B D_mean = c + beta mean,    B D_s = (c noise + beta (deviation - 1 / deviation)) softplus'(s - 5).

With its noise put in, the network is one without a defence. Balunovic et al. 2022 showed that PRECODE falls
to an attacker who reads the layer before its noise.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attacks.reading import alone
from dpbench.protocol import Bottleneck, Knowledge, Release, bottleneck_head

NAME = "precode"
UNREAD = "The noise of precode could not be read from the release, so the attack drew noise of its own."
"""What a row's `note` says then."""
RIGHT = 1e-2
"""The residual below which a sample's noise is read: no wrong features come near it, and rounding errors of a
sample with a small gradient do."""
STARTS = 2000
"""Searches for the features of several samples, at most ..."""
TRIES = 6
"""... and so many times, as a wrong vector that was found early stays in the way."""


@dataclass(frozen=True)
class Draws:
    """The samples of a batch as the encoder's gradient tells them.

    Attributes:
        features: float64 [B, F], what the encoder takes.
        deltas: float64 [B, 2 width], what each sample adds to the gradient of the encoder's bias.
        noise: float64 [B, width].
        labels: int64 [B].
        residual: [B], how far the loss gradient of each code is from what the rest of the network makes of
            it, relative.
    """

    features: Tensor
    deltas: Tensor
    noise: Tensor
    labels: Tensor
    residual: Tensor


def in_the_know(
    release: Release, knowledge: Knowledge, generator: torch.Generator, adaptive: bool
) -> tuple[Release, Knowledge, bool]:
    """What an attacker goes on with where the victim has a bottleneck; any other release comes back as it is.

    Where the noise can be read it is put into the network, and what was released is its plain gradient.
    Otherwise the network gets noise of the attacker's own.

    Args:
        release: under `precode`, the last stage if the noise is to be read.
        knowledge: the victim with its bottleneck.
        generator: on the CPU.
        adaptive: read the noise.

    Returns:
        Release and knowledge, and whether the labels in it were read, too.
    """
    found = bottleneck_head(knowledge.model)
    if found is None or NAME not in (stage.name for stage in release.defense):
        return release, knowledge, False
    draws = None
    if adaptive and len(release.defense) == 1:
        release = alone(release)[0]  # noise is new in each of several, and one is enough
        draws = read(release, knowledge, generator)
    known = None if draws is None else _in_order(draws, knowledge.labels)
    model = copy.deepcopy(knowledge.model)
    bottleneck = bottleneck_head(model)[1].bottleneck
    if known is None:
        bottleneck.noise = own_noise(bottleneck, release.batch_size, generator)
        return release, replace(knowledge, model=model), False
    bottleneck.noise = known.noise.to(bottleneck.decoder.weight)
    told = replace(knowledge, model=model, labels=known.labels)
    return replace(release, defense=()), told, knowledge.labels is None


def own_noise(bottleneck: Bottleneck, batch: int, generator: torch.Generator) -> Tensor:
    """Draws of the attacker's own, [B, width]."""
    return torch.randn(batch, bottleneck.width, generator=generator).to(bottleneck.decoder.weight)


def redrawing(model: nn.Module, release: Release, generator: torch.Generator) -> Callable[..., None] | None:
    """What draws the noise in the network anew, in place; None where there is none, or it was read."""
    if NAME not in (stage.name for stage in release.defense):
        return None
    noise = bottleneck_head(model)[1].bottleneck.noise

    def redraw(*_: object) -> None:
        noise.copy_(torch.randn(noise.shape, generator=generator))

    return redraw


def read(release: Release, knowledge: Knowledge, generator: torch.Generator) -> Draws | None:
    """The noise of each sample, in any order; None where the release does not give all of it away.

    Args:
        release: one gradient, of `precode` alone.
        knowledge: the victim with its bottleneck.
        generator: on the CPU.
    """
    # here, as `attacks.exact` holds attacks, which need `attacks.base`, which needs this
    from attacks.exact.separation import separated
    from attacks.exact.subspace import subspace

    name, head = bottleneck_head(knowledge.model)
    gradients = dict(zip(release.names, release.gradients, strict=True))
    try:
        weight, bias = (
            gradients[f"{name}.bottleneck.encoder.{each}"].double() for each in ("weight", "bias")
        )
    except KeyError:  # frozen
        return None
    batch, beta = release.batch_size, knowledge.loss.weight
    if min(weight.shape) <= batch:
        return None
    space = subspace(weight, batch)
    if space is None or len(space) < batch:
        return None
    explain = lambda rows: _explained(rows, weight, bias, head, knowledge, batch, beta)  # noqa: E731
    for _ in range(TRIES if batch > 1 else 1):
        found = separated(space, explain, generator, STARTS, one_sign=batch > 1)
        if found is not None and len(found.residual) == batch and bool((found.residual < RIGHT).all()):
            return found
    return None


def _explained(
    rows: Tensor,
    weight: Tensor,
    bias: Tensor,
    head: nn.Module,
    knowledge: Knowledge,
    batch: int,
    beta: float,
) -> Draws | None:
    """The draws of the samples whose features are multiples of `rows` [B, F]; None for no such scales."""
    mixed = weight @ torch.linalg.pinv(rows)  # [2 width, B]: rows of D, each times its sample's scale
    inverse = torch.linalg.lstsq(mixed, bias[:, None]).solution[:, 0]
    features, deltas = rows / inverse[:, None], batch * (mixed * inverse).T
    if not bool(features.isfinite().all()):
        return None
    exact = copy.deepcopy(head).double()
    with torch.no_grad():
        mean, raw = exact.bottleneck.encoder(features).chunk(2, 1)
    shifted = raw - exact.bottleneck.shift
    of_mean, of_raw = deltas.chunk(2, 1)
    deviation = F.softplus(shifted)
    pulled = of_mean - beta * mean  # the loss gradient of the code
    noise = (of_raw / torch.sigmoid(shifted) - beta * (deviation - 1 / deviation)) / pulled
    noise = torch.where(noise.isfinite(), noise, 0.0)
    expected = _pulls(exact, mean + deviation * noise, knowledge)
    apart = (expected - pulled[:, None]).norm(dim=2) / pulled.norm(dim=1, keepdim=True)
    residual, labels = apart.min(1)
    return Draws(features, deltas / batch, noise, labels, residual)


def _pulls(head: nn.Module, codes: Tensor, knowledge: Knowledge) -> Tensor:
    """The loss gradient of codes [B, width] for each label, [B, K, width]."""
    count, classes = len(codes), knowledge.num_classes
    labels = torch.arange(classes, device=codes.device).repeat(count)
    with torch.enable_grad():
        each = codes.repeat_interleave(classes, 0).requires_grad_()
        value = len(each) * knowledge.loss.loss(head.linear(head.bottleneck.decoder(each)), labels)
    return torch.autograd.grad(value, each)[0].view(count, classes, -1)


def _in_order(draws: Draws, labels: Tensor | None) -> Draws | None:
    """The draws in the order of known labels; None where they contradict each other."""
    if labels is None:
        return draws
    own, known = draws.labels.argsort(stable=True), labels.argsort(stable=True)
    if not torch.equal(draws.labels[own], labels[known].to(own)):
        return None
    order = own[known.argsort()]
    return Draws(
        draws.features[order], draws.deltas[order], draws.noise[order], labels, draws.residual[order]
    )

"""Outpost: pruning, and noise by the spread of the weights where the gradient tells most; less with time."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from defenses.base import Aggregator, Gradients, defense, mean_gradient, read_shares
from dpbench.protocol import Loss, Reading, Release, parameter

ROUNDING = 1e-6
"""Singular values below this share of the largest are rounding errors of a gradient in float32."""


@defense("outpost")
class Outpost(Aggregator):
    """Prunes each tensor and adds noise to the entries of highest Fisher information (Wang et al. 2023).

    With probability 1 / (1 + beta t) in round t: the smallest `outpost_prune` percent of each tensor's
    entries are set to 0; then the `outpost_phi` percent of all entries with the largest squared gradient get
    Gaussian noise of standard deviation `outpost_noise` * min(variance of the tensor's weights, 1). Otherwise
    the plain gradient leaves. The squared mean gradient stands for the diagonal of the empirical Fisher
    information, as it is for a batch of one. One public implementation returns the gradient unchanged, as it
    assigns the result to a loop variable. Nothing is clipped: no guarantee.

    Attributes:
        outpost_prune: percent of each tensor's entries that are pruned, in [0, 100).
        outpost_phi: percent of all entries that get noise, in [0, 100].
        outpost_noise: scale of the noise, 0 or more.
        outpost_beta: how fast the perturbation becomes rare, 0 or more.
        outpost_round: t, the rounds of training so far, 0 or more.

    Raises:
        InputError: for a value outside its range.
    """

    repeatable = True
    outpost_prune: float = parameter(
        80.0,
        "percent of each tensor's entries that outpost prunes",
        symbol="pruned",
        unit="%",
        at_least=0,
        below=100,
    )
    outpost_phi: float = parameter(
        40.0,
        "percent of all entries to which outpost adds noise",
        symbol="φ",
        unit="%",
        at_least=0,
        at_most=100,
    )
    outpost_noise: float = parameter(
        0.8, "outpost's noise in units of the variance of a tensor's weights", symbol="λ", at_least=0
    )
    outpost_beta: float = parameter(
        0.125,
        "how fast outpost becomes rare: it acts with probability 1 / (1 + beta t)",
        symbol="β",
        at_least=0,
    )
    outpost_round: int = parameter(0, "rounds of training before outpost's release", symbol="t", at_least=0)

    def aggregate(
        self, model: nn.Module, loss: Loss, images: Tensor, labels: Tensor, generator: torch.Generator
    ) -> Gradients:
        """The perturbed gradient, or the plain one."""
        gradients = mean_gradient(model, loss, images, labels)
        chance = 1 / (1 + self.outpost_beta * self.outpost_round)
        if float(torch.rand((), generator=generator, device=generator.device)) >= chance:
            return gradients
        noised = _largest(torch.cat([g.flatten() for g in gradients]), self.outpost_phi)
        marks = noised.split([g.numel() for g in gradients])
        weights = [p for p in model.parameters() if p.requires_grad]
        found = []
        for g, mark, weight in zip(gradients, marks, weights, strict=True):
            spread = weight.detach().var(correction=0).clamp(max=1.0)
            noise = torch.randn(g.shape, generator=generator, device=g.device, dtype=g.dtype)
            kept = torch.where(_largest(g, 100 - self.outpost_prune).view_as(g), g, 0.0)
            found.append(kept + self.outpost_noise * spread * noise * mark.view_as(g))
        return tuple(found)

    def read(self, release: Release) -> Reading:
        """As many entries of each tensor as are kept, those that are largest; the others are no larger.

        What is not kept and gets noise all the same shows how loud the noise is. Among several releases only
        noise differs. A plain release is all there is: the gradient of a fully connected layer is a sum of
        as many products of two vectors as there are images, which pruning would not leave.
        """
        if all(_plain(each, release.batch_size) for each in release.each):
            return read_shares(release, [torch.ones_like(g) for g in release.gradients])
        shares, bounds, variances = [], [], []
        for g in release.gradients:
            kept = _largest(g, 100 - self.outpost_prune).view_as(g) & (g != 0)
            noise = g[~kept & (g != 0)]
            shares.append(kept.to(g.dtype))
            bounds.append(g[kept].abs().min() if bool(kept.any()) else g.new_zeros(()))
            variances.append(torch.full_like(g, float(noise.square().mean()) if len(noise) else 0.0))
        return replace(read_shares(release, shares, tuple(bounds)), variances=tuple(variances))


def _plain(gradients: Gradients, batch: int) -> bool:
    """Whether the gradient of each fully connected layer that is large enough has the rank of a batch."""
    matrices = [g for g in gradients if g.ndim == 2 and min(g.shape) > batch and bool(g.any())]
    sizes = [torch.linalg.svdvals(g.double()) for g in matrices]
    return bool(sizes) and all(float(s[batch]) < ROUNDING * float(s[0]) for s in sizes)


def _largest(values: Tensor, percent: float) -> Tensor:
    """A flat mask of the `percent` largest magnitudes; of equal ones the first."""
    count = round(percent / 100 * values.numel())
    chosen = values.flatten().abs().argsort(descending=True, stable=True)[:count]
    return torch.zeros(values.numel(), dtype=torch.bool, device=values.device).index_fill(0, chosen, True)

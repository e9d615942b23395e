"""NVFlare's sparse vector filter: a noisy threshold chooses entries, noise covers the few that leave."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from defenses.base import Gradients, PostProcessor, defense, sparse_reading
from dpbench.protocol import Claim, Reading, Release, parameter

FAR = 10.0
"""Scales of Laplace noise that are hardly ever exceeded: in exp(-10) of all cases."""


@defense("sparse-vector")
class SparseVector(PostProcessor):
    """Sends c = ceil(fraction * n) of n entries that passed a noisy threshold, clipped, with Laplace noise.

    The rule of NVFlare's `SVTPrivacy` since its pull request 4470, for one local step. Entries are clipped
    to +-gamma. Those whose magnitude plus Lap(2 c gamma / eps_2) reaches tau + Lap(gamma / eps_1) are
    accepted; the others are asked again, until c or more are accepted. c draws among the accepted leave, with
    Lap(2 gamma / `svt_noise_var`) on each. eps_1 + eps_2 is `nominal_eps`, and eps_2 / eps_1 is (2 c)^(2/3)
    (Lyu, Su & Li 2017). A tensor of a single number without dimensions leaves as it is.

    **No guarantee is carried.** NVFlare's own sum is `nominal_eps` + c * `svt_noise_var`, 1,000 for a model
    of 100,000 entries. The second half of it is exact. The first is not proven: a pass accepts as many as
    reach the threshold, not c. `dpbench.privacy.sparse_vector_epsilon` says what is proven.

    Attributes:
        svt_fraction: c / n, in (0, 1].
        nominal_eps: the epsilon that is typed in, above 0; it pays for the choice of entries alone.
        svt_noise_var: the epsilon of each entry that leaves, above 0. It is no variance.
        svt_gamma: gamma, above 0.
        svt_tau: tau, 0 or more.
        svt_replace: draw with replacement, so that fewer than c entries leave.

    Raises:
        InputError: for a value outside its range.
    """

    repeatable = True
    svt_fraction: float = parameter(
        0.1, "share of entries that sparse-vector sends", symbol="c/n", above=0, at_most=1
    )
    nominal_eps: float = parameter(
        0.1, "epsilon typed into a product's filter; its worth is another number", symbol="nominal ε", above=0
    )
    svt_noise_var: float = parameter(
        0.1,
        "epsilon of each entry that sparse-vector sends; NVFlare calls it noise_var",
        symbol="ε₃",
        above=0,
    )
    svt_gamma: float = parameter(
        1e-5, "magnitude to which sparse-vector clips every entry", symbol="γ", above=0
    )
    svt_tau: float = parameter(1e-6, "threshold of sparse-vector before its noise", symbol="τ", at_least=0)
    svt_replace: bool = parameter(
        True, "whether sparse-vector draws among accepted entries with replacement", symbol="replace"
    )

    def claim(self, entries: int) -> Claim:
        """The sum that NVFlare's accountant reports for so many entries."""
        return Claim(self.nominal_eps + self._sent(entries) * self.svt_noise_var)

    def process(self, gradients: Gradients, generator: torch.Generator) -> Gradients:
        """The chosen entries with noise, zero elsewhere."""
        values = torch.cat([g.flatten() for g in gradients]).double().clamp(-self.svt_gamma, self.svt_gamma)
        count = self._sent(len(values))
        accepted = self._accepted(values.abs(), count, generator).nonzero().flatten()
        if self.svt_replace:
            draws = torch.randint(len(accepted), (count,), generator=generator, device=values.device)
            chosen = accepted[draws].unique()  # of several draws of an entry the last one stays
        else:
            draws = torch.randperm(len(accepted), generator=generator, device=values.device)
            chosen = accepted[draws[:count]]
        noise = _laplace(len(chosen), self._scale, values.device, generator)
        sent = torch.zeros_like(values).index_copy(0, chosen, values[chosen] + noise)
        parts = sent.split([g.numel() for g in gradients])
        return tuple(
            part.view_as(g).to(g.dtype) if g.ndim else g.clone()
            for part, g in zip(parts, gradients, strict=True)
        )

    def read(self, release: Release) -> Reading:
        """The entries that are not zero, under Laplace noise; of those that may be clamped only a bound.

        The noise hides which were clamped: an entry is taken for clamped unless it is so far below gamma that
        its noise would have to be `FAR` times its scale. With noise above gamma that is every one.
        """
        clear = self.svt_gamma - FAR * self._scale
        clamped = tuple(
            torch.stack([(g.abs() > clear) & (g.ndim > 0) for g in same]).any(0)
            for same in zip(*release.each, strict=True)
        )
        return replace(sparse_reading(release), saturated=clamped)

    def expected(self, gradients: Gradients) -> Gradients:
        """What a release of these gradients holds on average in the entries that it sends."""
        return tuple(g.clamp(-self.svt_gamma, self.svt_gamma) if g.ndim else g for g in gradients)

    @property
    def _scale(self) -> float:
        """Of the Laplace noise on what is sent."""
        return 2 * self.svt_gamma / self.svt_noise_var

    def _sent(self, entries: int) -> int:
        return min(math.ceil(entries * self.svt_fraction), entries)

    def _accepted(self, magnitudes: Tensor, count: int, generator: torch.Generator) -> Tensor:
        """Which entries are accepted once the first pass is over after which there are `count`, bool [n].

        An entry is accepted in each pass with the same chance, so the number of its pass is a geometric draw;
        that gives the distribution of all passes without a loop that may last for ever.
        """
        device, ratio = magnitudes.device, (2 * count) ** (2 / 3)
        first = self.nominal_eps / (1 + ratio)
        threshold = self.svt_tau + _laplace(1, self.svt_gamma / first, device, generator)
        missing = (threshold - magnitudes) * (self.nominal_eps - first) / (2 * count * self.svt_gamma)
        tail = (-missing.abs()).exp() / 2
        chance = torch.where(missing > 0, tail, 1 - tail)
        waiting = _exponential(len(magnitudes), device, generator)
        passes = (waiting / -torch.log1p(-chance)).ceil().clamp_min(1.0)
        return passes <= passes.kthvalue(count).values


def _exponential(size: int, device: torch.device, generator: torch.Generator) -> Tensor:
    return torch.empty(size, dtype=torch.float64, device=device).exponential_(generator=generator)


def _laplace(size: int, scale: float, device: torch.device, generator: torch.Generator) -> Tensor:
    """A difference of two exponential draws."""
    return scale * (_exponential(size, device, generator) - _exponential(size, device, generator))

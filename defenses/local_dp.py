"""Flower's local differential privacy: the whole update clipped, noise for a sensitivity typed in."""

from __future__ import annotations

import torch

from defenses.base import Gradients, PostProcessor, defense
from dpbench.protocol import Claim, classical_noise_multiplier, parameter


@defense("local-dp")
class LocalDP(PostProcessor):
    """Clips the whole update to `clipping_norm`, and adds Gaussian noise by the classical formula.

    The rule of Flower's `LocalDpMod` for one local step with learning rate 1; for another rate, divide norm
    and sensitivity by it. The standard deviation is `nominal_sensitivity` * sqrt(2 log(1.25 /
    `nominal_delta`)) / `nominal_eps`, whatever the clipping norm is. Flower has no defaults; these are those
    of a public deployment. **No guarantee is carried**: two clipped updates can be 2 `clipping_norm` apart,
    20,000 times this sensitivity, and the formula is not proven at epsilon 1 and above. What the noise is
    worth: `dpbench.privacy.local_dp_epsilon`.

    Attributes:
        clipping_norm: bound on the l2 norm of the update, above 0.
        nominal_sensitivity: what the noise is made for, above 0.
        nominal_eps: the epsilon that is typed in, above 0.
        nominal_delta: the delta that is typed in, in (0, 1).

    Raises:
        InputError: for a value outside its range.

    Example:
        >>> LocalDP().process((torch.tensor([3.0, -4.0]),), torch.Generator())[0].round(decimals=3)
        tensor([ 0.6000, -0.8000])
    """

    repeatable = True
    clipping_norm: float = parameter(
        1.0, "l2 norm to which local-dp clips the update of the whole batch", symbol="S", above=0
    )
    nominal_sensitivity: float = parameter(
        1e-4, "sensitivity that local-dp makes its noise for, whatever the clipping norm", symbol="Δ", above=0
    )
    nominal_eps: float = parameter(
        10.0,
        "epsilon typed into a product's filter; its worth is another number",
        symbol="nominal ε",
        above=0,
    )
    nominal_delta: float = parameter(
        1e-5, "delta typed into a product's filter", symbol="nominal δ", above=0, below=1
    )

    @property
    def noise_std(self) -> float:
        """Standard deviation of the noise on every entry of the update."""
        return self.nominal_sensitivity * classical_noise_multiplier(self.nominal_eps, self.nominal_delta)

    def claim(self, entries: int) -> Claim:
        """What was typed in."""
        return Claim(
            self.nominal_eps,
            self.nominal_delta,
            classical_noise_multiplier(self.nominal_eps, self.nominal_delta),
            self.nominal_sensitivity,
        )

    def process(self, gradients: Gradients, generator: torch.Generator) -> Gradients:
        """The clipped gradients with independent noise on every entry."""
        norm = torch.stack([g.double().square().sum() for g in gradients]).sum().sqrt()
        factor = (self.clipping_norm / norm.clamp_min(torch.finfo(norm.dtype).tiny)).clamp(max=1.0)
        return tuple(
            g * factor.to(g.dtype)
            + self.noise_std * torch.randn(g.shape, generator=generator, device=g.device, dtype=g.dtype)
            for g in gradients
        )

"""The claim of `clip+noise`: that of the Gaussian mechanism, as rows of it have it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import defenses
from dpbench.cell.parts import is_gaussian
from dpbench.privacy import Budget, gaussian_claim
from dpbench.protocol import Guarantee


@dataclass(frozen=True)
class _Gaussian(defenses.Chain):
    """Clipping, noise and what follows; the guarantee is of the first two together."""

    claimed: Guarantee | None = None

    @property
    def guarantee(self) -> Guarantee | None:
        """That of the noise, where it is there."""
        return self.claimed if len(self.stages) > 1 else None


def with_claim(chain: defenses.Chain, batch_size: int, delta: float) -> defenses.Chain:
    """The chain with the epsilon of one release that its noise has, if it begins with clip+noise.

    Args:
        chain: any defence.
        batch_size: B of the mean that the noise is added to.
        delta: of the guarantee.
    """
    if not is_gaussian(chain.name):
        return chain
    clip, noise = chain.stages[:2]
    if not noise.noise_std:
        return chain
    found = Budget(eps=None, eps_scope="release", delta=delta).guarantee(
        noise_multiplier=gaussian_claim(noise.noise_std, batch_size, clip.max_grad_norm),
        max_grad_norm=clip.max_grad_norm,
        batch_size=batch_size,
    )
    return _Gaussian(chain.stages, replace(found, unit=clip.unit))

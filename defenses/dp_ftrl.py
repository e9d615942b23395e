"""DP-FTRL by matrix factorisation: clipping, and noise of which later releases take some back."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from defenses.base import Aggregates, Gradients, defense
from defenses.dp_sgd import DPSGD
from dpbench.protocol import Factorisation, Loss, parameter


@defense("dp-ftrl")
class DPFTRL(DPSGD):
    """Clipped gradients, noise correlated over releases (Denisov et al. 2022; Choquette-Choo et al. 2023).

    Release t is (sum of clipped gradients + sigma C (M^-1 z)_t) / B with z ~ N(0, I) and M the square root of
    the prefix-sum matrix, banded: sums over releases, which training is made of, carry less noise. All T
    releases together are the Gaussian mechanism on M g, whose sensitivity is |M u| C for a sample that takes
    part in the releases u. Here u is 1 throughout: the attacked batch is released T times. A single release
    is that of `dp`.

    Attributes:
        noise_multiplier: sigma, above 0; the noise on the first sum has standard deviation sigma * C.
        max_grad_norm: C, above 0.
        bands: in how many releases a draw of noise appears through M; 1 is `dp`.
        guarantee: what the noise is worth, by whoever calibrated it; None where nobody says.

    Raises:
        InputError: for a value outside its range.
        ValueError: for a guarantee about another noise or clip norm.
    """

    remembers = True
    bands: int = parameter(
        16, "bands of the matrix that correlates the noise of dp-ftrl; 1 is independent noise", at_least=1
    )

    def sensitivity(self, releases: int) -> float:
        """How far a sample that is in each of `releases` moves all of them together, in units of C."""
        return Factorisation(releases, self.bands).sensitivity()

    def aggregates(
        self,
        model: nn.Module,
        loss: Loss,
        images: Tensor,
        labels: Tensor,
        generator: torch.Generator,
        count: int,
    ) -> Aggregates:
        """Clipped once; releases of independent noise by Opacus, from which the correlated ones follow.

        With independent noise n_t and w = M^-1 n, w_t = n_t - sum over k >= 1 of m_k w_(t-k).

        Raises:
            InputError: for a model without per-sample gradients, or where clipping or noise went wrong.
        """
        means, method = self.clipped(model, loss, images, labels, generator)
        (mean,) = means(0.0, 1)
        weights = Factorisation(count, self.bands).coefficients().tolist()
        earlier: list[Gradients] = []
        released = []
        for noised in means(self.noise_multiplier, count):
            noise = [n - m for n, m in zip(noised, mean, strict=True)]
            for weight, before in zip(weights[1 : self.bands], reversed(earlier), strict=False):
                noise = [n - weight * b for n, b in zip(noise, before, strict=True)]
            earlier = [*earlier, tuple(noise)][-(self.bands - 1) :] if self.bands > 1 else []
            released.append(tuple(m + n for m, n in zip(mean, noise, strict=True)))
        return Aggregates(released, method)

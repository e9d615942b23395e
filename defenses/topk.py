"""Top-k sparsification with error feedback: the largest entries leave, the others wait their turn."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from defenses.base import Gradients, PostProcessor, defense, read_shares, smallest_sent
from dpbench.protocol import Reading, Release, parameter


@defense("topk")
class TopK(PostProcessor):
    """The k largest entries of all tensors together; what was left out is added to the next release.

    With m_0 = 0, release t is top_k(g + m_t), and m_(t+1) is what it left out (Stich et al. 2018, algorithm
    1, with the learning rate in g). A first release is pruning by magnitude. Made for saving bandwidth: it
    guarantees nothing, and every further release of the same batch adds entries.

    Attributes:
        topk_ratio: share of all entries that leave, in (0, 1]; at least one does.

    Raises:
        InputError: for a ratio outside (0, 1].

    Example:
        >>> same = (torch.tensor([3.0, -4.0]), torch.tensor([2.5, 0.1]))
        >>> for release in TopK(topk_ratio=0.25).process_all([same, same], torch.Generator()):
        ...     print(release)
        (tensor([ 0., -4.]), tensor([0., 0.]))
        (tensor([6., 0.]), tensor([0., 0.]))
    """

    remembers = True
    topk_ratio: float = parameter(
        0.1, "share of gradient entries that topk sends, in (0, 1]", symbol="top-k", above=0, at_most=1
    )

    def process(self, gradients: Gradients, generator: torch.Generator) -> Gradients:
        """A first release, with nothing left over from before; the generator is not used."""
        return self.stream(generator)(gradients)

    def stream(self, generator: torch.Generator) -> Callable[[Gradients], Gradients]:
        """Several releases, in each what the one before left out."""
        memory: list[Tensor] = []

        def send(gradients: Gradients) -> Gradients:
            waiting = [g + m for g, m in zip(gradients, memory, strict=True)] if memory else list(gradients)
            sent = self._largest(waiting)
            memory[:] = [w - s for w, s in zip(waiting, sent, strict=True)]
            return sent

        return send

    def read(self, release: Release) -> Reading:
        """The entries that are not zero; what was left out is sent later.

        T releases of one gradient, the last t of them with an entry, carry t times that entry: t / T of it in
        their mean. An entry that never left had grown, by the last release, to no more than the smallest that
        was sent then.
        """
        count, shares = len(release.each), []
        for same in zip(*release.each, strict=True):
            sent = torch.stack(same) != 0
            order = torch.arange(1, count + 1, device=sent.device).view(-1, *[1] * (sent.ndim - 1))
            shares.append(((sent * order).amax(0) / count).to(same[0].dtype))
        bounds = tuple(s / count for s in smallest_sent(release.each[-1], together=True))
        return read_shares(release, shares, bounds)

    def _largest(self, gradients: Sequence[Tensor]) -> Gradients:
        """Exactly k entries of all tensors together, the rest zero; of equal ones the first."""
        entries = torch.cat([g.flatten() for g in gradients])
        kept = max(1, round(self.topk_ratio * entries.numel()))
        chosen = entries.abs().sort(descending=True, stable=True).indices[:kept]
        sparse = torch.zeros_like(entries).index_copy(0, chosen, entries[chosen])
        parts = sparse.split([g.numel() for g in gradients])
        return tuple(part.view_as(g).clone() for part, g in zip(parts, gradients, strict=True))

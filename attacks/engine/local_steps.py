"""What a client's local steps make of trial images: the gradient to compare with the update that it sent.

The release holds (weights before - weights after) / (lr K), the mean gradient of K steps of SGD. Only the
first of them was taken at weights that the attacker knows.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from dpbench.protocol import LocalTraining, Release

Weights = Mapping[str, Tensor]
LossAt = Callable[[Weights, slice], Tensor]
"""(the victim's trainable weights, places of images) -> its mean loss on these images."""
ALL = slice(None)
SLOW = 10.0
"""How much slower than the variables of the images `Surrogate` moves alpha, which lies in [0, 1]."""


class Path(nn.Module, ABC):
    """From trial images to the mean gradient of a client's local steps.

    Attributes:
        searched: how many scalars are searched besides the images, all 0 at the start.
    """

    searched: ClassVar[int] = 0

    @abstractmethod
    def forward(
        self, loss_at: LossAt, weights: Weights, released: Sequence[Tensor], variables: Sequence[Tensor]
    ) -> list[Tensor]:
        """One gradient for each of `weights`, differentiable in the images and in what is `searched`.

        Args:
            loss_at: the victim's loss on trial images.
            weights: those that the server sent out.
            released: the mean gradient that it got back.
            variables: of the search; the `searched` scalars come last.
        """


class Simulate(Path):
    """The same steps on the trial images, unrolled (as Geiping et al. 2020, section 6; Dimitrov et al. 2022).

    Exact: at the client's images, in the order of its batches, it gives the release itself.
    """

    def __init__(self, local: LocalTraining, images: int) -> None:
        super().__init__()
        self.local, self.images = local, images

    def forward(
        self, loss_at: LossAt, weights: Weights, released: Sequence[Tensor], variables: Sequence[Tensor]
    ) -> list[Tensor]:
        """The mean gradient over the steps; memory and time grow with their number."""
        now, total = dict(weights), [torch.zeros_like(w) for w in weights.values()]
        batches = self.local.batches(self.images)
        for rows in batches:
            step = gradient(loss_at(now, rows), now)
            now = {name: w - self.local.lr * g for (name, w), g in zip(now.items(), step, strict=True)}
            total = [t + g for t, g in zip(total, step, strict=True)]
        return [t / len(batches) for t in total]


class Surrogate(Path):
    """One gradient of all images at a point between the weights before and after (Zhu et al. 2023, SME).

    w(alpha) = (1 - alpha) w_before + alpha w_after, alpha in [0, 1] being searched along with the images. It
    needs neither the order of the batches nor their size.

    The paper clamps alpha. Here alpha = (1 + sin(v / 10)) / 2, which keeps it in [0, 1] under any optimiser;
    it begins at 1/2.
    """

    searched = 1

    def __init__(self, local: LocalTraining, images: int) -> None:
        super().__init__()
        self.length = local.length(images)

    def forward(
        self, loss_at: LossAt, weights: Weights, released: Sequence[Tensor], variables: Sequence[Tensor]
    ) -> list[Tensor]:
        """The gradient at w(alpha)."""
        far = (1 + torch.sin(variables[-1] / SLOW)) / 2 * self.length
        between = {name: w - far * g for (name, w), g in zip(weights.items(), released, strict=True)}
        return gradient(loss_at(between, ALL), between)


def gradient(loss: Tensor, weights: Weights) -> list[Tensor]:
    """Of the loss in the weights, differentiable; zero for a weight that the loss does not use."""
    return list(torch.autograd.grad(loss, list(weights.values()), create_graph=True, materialize_grads=True))


def with_path(start: Sequence[Tensor], path: Path | None) -> list[Tensor]:
    """The variables that a search sets out from, and those of `path` after them."""
    count = 0 if path is None else path.searched
    return [*start, *(torch.zeros((), device=start[0].device, dtype=start[0].dtype) for _ in range(count))]


def path_of(release: Release, update: str) -> Path | None:
    """How to match `release` in the way `update`; None for a gradient, of which one step is one."""
    local, images = release.local, release.batch_size
    if local is None or local.steps(images) == 1 or update == "single-gradient":
        return None
    return (Simulate if update == "simulate" else Surrogate)(local, images)

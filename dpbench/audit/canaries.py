"""Samples planted to be found, in batches chosen to give them away, on a model that hides nothing."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

SHAPE = (3, 4, 4)
SIZE, TENSORS = 48, 2
LARGE = 100
"""How many times the clip norm the gradient of a large canary has."""
UNEVEN = 0.5
"""Largest norm of the others in an uneven batch, in clip norms."""


class Probe(nn.Module):
    """A linear model whose loss, the mean output, has the image itself as each sample's gradient.

    The gradient lies in two tensors, so that a defence that treats them one by one shows it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = (nn.Linear(SIZE // TENSORS, 1, bias=False) for _ in range(TENSORS))
        for p in self.parameters():
            nn.init.zeros_(p)

    def forward(self, images: Tensor) -> Tensor:
        """Outputs [B, 1] of images [B, *SHAPE]."""
        halves = images.flatten(1).split(SIZE // TENSORS, dim=1)
        return self.first(halves[0]) + self.second(halves[1])


def mean_output(outputs: Tensor, labels: Tensor) -> Tensor:
    """The probe's loss; the labels do not matter."""
    return outputs.mean()


@dataclass(frozen=True)
class Canary:
    """One sample and the rest of its batch.

    Attributes:
        name: for the table.
        direction: [SIZE], unit vector along the canary's gradient.
        present: [B, *SHAPE], the batch with the canary.
        absent: [B, *SHAPE], the same with a sample of zero gradient in its place, so that the size of the
            batch, which is public, gives nothing away.
    """

    name: str
    direction: Tensor
    present: Tensor
    absent: Tensor


def canaries(max_grad_norm: float, batch_size: int, seed: int) -> list[Canary]:
    """Canaries of gradient norm C and 100 C, each among two kinds of other samples.

    Opposed to the canary, of norm C: they show a defence whose treatment of the whole batch a single large
    sample can turn round. Random, of norm C around the canary of norm C: noise per sample or per layer fails
    on them. Around the one of norm 100 C their norms are uneven, the smaller half at C / 100 and the
    larger one at C / 2: mean, median and maximum of the batch's norms, clipped or not, then depend on the
    canary, so that a clip norm or a noise level taken from them gives it away.

    The canaries of norm C lie in both tensors alike, the ones of 100 C nearly all in one, each in another: a
    norm that leaves this tensor out does not bound them.
    """
    generator = torch.Generator().manual_seed(seed)
    direction, *others = nn.functional.normalize(torch.randn(batch_size, SIZE, generator=generator))
    random = torch.stack(others)
    norms = torch.full((batch_size - 1, 1), UNEVEN)
    norms[: (batch_size - 1) // 2] = 1 / LARGE
    found = []
    for factor, kind, first in (
        (1, "random", 1.0),
        (1, "opposed", 1.0),
        (LARGE, "uneven", 0.1),
        (LARGE, "opposed", 10.0),
    ):
        weights = torch.tensor([first, 1.0]).repeat_interleave(SIZE // TENSORS)
        axis = nn.functional.normalize(direction * weights, dim=0)
        batch = {
            "random": random,
            "opposed": -axis.repeat(batch_size - 1, 1),
            "uneven": norms * random,
        }[kind]
        canary = torch.stack([factor * axis, torch.zeros(SIZE)])
        present, absent = (max_grad_norm * torch.cat([image[None], batch]) for image in canary)
        name = f"{'C' if factor == 1 else f'{factor} C'}, others {kind}"
        found.append(Canary(name, axis, present.view(-1, *SHAPE), absent.view(-1, *SHAPE)))
    return found

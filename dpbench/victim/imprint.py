"""What a malicious server hands out: the victim with a layer beside it that keeps samples apart.

A client that runs the model it is sent computes this layer's gradient along with the rest.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from dpbench.protocol import ImageStatistics, Loss

VICTIM_WEIGHT = 1e-3
"""Weight of the victim's own logits: its gradients must not use up the clip norm."""
IMPRINT_WEIGHT = 0.5
"""What the imprint layer moves the logits by, at most."""
SLOPE = 20
"""Even: how often they go there or back within a bin: gradients are large where logits are not."""
CONSTANT_SHARE = 0.1
"""Share of a row's squared gradient norm that its bias has: it tells scale and sign under noise."""
BINS_PER_SAMPLE = 64


class ImprintModel(nn.Module):
    """`victim` with an imprint module that reads the same pixels (Fowl et al. 2022, its sparse variant).

    Output i of the layer is the mean brightness, rescaled so that it lies in (0, 1) only if the image falls
    into bin i, and clamped to [0, 1]. An image outside the bin leaves no gradient in that row, so each row
    holds the sum over the few images of its bin, and of a single image if bins are narrow. One bin is an
    isolating linear layer for a batch of one.

    The layer is fed `gain` * (image - public mean image): what all images share would use up most of the clip
    norm and tell nothing.

    Args:
        victim: takes images [B, C, H, W] in [0, 1].
        edges: ascending brightnesses [bins + 1]; the outermost should hold all images.
        statistics: of public images of that size.
    """

    def __init__(self, victim: nn.Module, edges: Tensor, statistics: ImageStatistics) -> None:
        super().__init__()
        pixels, width = statistics.mean_image.numel(), edges.diff()
        self.gain = math.sqrt(
            (1 - CONSTANT_SHARE) / CONSTANT_SHARE / float(statistics.spectrum.double().sum())
        )
        self.register_buffer("mean_image", statistics.mean_image.clone())
        self.imprint = nn.Linear(pixels, len(width))
        self.victim = victim
        with torch.no_grad():
            self.imprint.weight.copy_((1 / (self.gain * pixels * width))[:, None].expand(-1, pixels))
            self.imprint.bias.copy_((statistics.mean_image.mean() - edges[:-1]) / width)
        self.train(victim.training)

    def forward(self, images: Tensor) -> Tensor:
        """Logits [B, K]."""
        outputs = self.imprint(self.gain * (images - self.mean_image).flatten(1))
        return logits(outputs, self.victim(images))


def logits(outputs: Tensor, victim_logits: Tensor) -> Tensor:
    """Logits [B, K] of a planted layer's outputs [B, bins] and of the victim.

    Odd classes lose what even ones gain, so that no label silences the layer.
    """
    # a triangle wave: 0 for all bins but the image's own, which are at 0 or 1
    level = (1 - (SLOPE * outputs.clamp(0, 1) % 2 - 1).abs()).sum(1, keepdim=True)
    signs = 1 - 2 * (torch.arange(victim_logits.shape[1], device=outputs.device) % 2)
    return VICTIM_WEIGHT * victim_logits + IMPRINT_WEIGHT * level * signs


def edges_for(batch_size: int, statistics: ImageStatistics) -> Tensor:
    """Bins that public images fall into about equally often, brightness being near normal.

    Args:
        batch_size: B; a batch of one needs one bin only.
        statistics: of the public images.

    Returns:
        float32 [bins + 1], the first below 0 and the last above 1.
    """
    bins = 1 if batch_size == 1 else BINS_PER_SAMPLE * batch_size
    # orthonormal FFT: power at frequency 0 is H * W times the variance of an image's mean
    share = statistics.colours.double().mean(1).square()
    deviation = (
        (share * statistics.spectrum[:, 0, 0].double()).sum().div(statistics.mean_image[0].numel()).sqrt()
    )
    inner = torch.special.ndtri(torch.arange(1, bins, dtype=torch.float64) / bins)
    ends = torch.tensor([-0.01]), torch.tensor([1.01])
    inner = (statistics.mean_image.double().mean() + deviation * inner).clamp(0, 1).float()
    return torch.cat([ends[0], inner, ends[1]]).unique()


def exposures(
    model: ImprintModel, loss: Loss, images: Tensor, labels: Tensor
) -> list[tuple[float, float] | None]:
    """Per image, what decides how well its row of the imprint layer gives it away under noise.

    Args:
        model: the victim with its imprint layer.
        loss: mean-reduced.
        images: [B, C, H, W] in [0, 1].
        labels: int64 [B].

    Returns:
        The norm of the image's whole gradient, and how much of a pixel is in its row: the loss gradient of
        the row's output times the gain. None where another image falls into the same bin.
    """
    parameters, norms, rows = [p for p in model.parameters() if p.requires_grad], [], []
    for i in range(len(images)):
        value = loss(model(images[i : i + 1]), labels[i : i + 1])
        found = torch.autograd.grad(value, [model.imprint.bias, *parameters], materialize_grads=True)
        rows.append(found[0])
        norms.append(math.sqrt(sum(float(g.double().square().sum()) for g in found[1:])))
    alone = sum((row != 0).int() for row in rows) == 1
    return [
        (norm, model.gain * float(row.abs().max())) if bool((alone & (row != 0)).any()) else None
        for norm, row in zip(norms, rows, strict=True)
    ]

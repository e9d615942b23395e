"""What a malicious server hands out: the victim with a layer beside it that keeps samples apart.

A client that runs the model it is sent computes this layer's gradient along with the rest.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dpbench.protocol import ImagePrior

QUIET = 1e-3
"""Weight of the victim's own logits: its gradients must not use up the clip norm."""
LOUD = 0.5
"""What the planted layer moves the logits by."""
BINS_PER_SAMPLE = 64


class Planted(nn.Module):
    """`victim` with an imprint module that reads the same pixels (Fowl et al. 2022, its sparse variant).

    Output i of the layer is the mean brightness, rescaled so that it lies in (0, 1) only if the image falls
    into bin i, and clamped to [0, 1]. An image outside the bin leaves no gradient in that row, so each row
    holds the sum over the few images of its bin, and of a single image if bins are narrow. One bin is an
    isolating linear layer for a batch of one.

    Args:
        victim: takes images [B, C, H, W] in [0, 1].
        edges: ascending brightnesses [bins + 1]; the outermost should hold all images.
        pixels: C * H * W.
        num_classes: K.
    """

    def __init__(self, victim: nn.Module, edges: Tensor, pixels: int, num_classes: int) -> None:
        super().__init__()
        self.imprint = nn.Linear(pixels, len(edges) - 1)
        self.victim = victim
        width = edges.diff()
        with torch.no_grad():
            self.imprint.weight.copy_((1 / (pixels * width))[:, None].expand(-1, pixels))
            self.imprint.bias.copy_(-edges[:-1] / width)
        self.num_classes = num_classes
        self.train(victim.training)

    def forward(self, images: Tensor) -> Tensor:
        """Logits [B, K]: odd classes lose what even ones gain, so that no label silences the layer."""
        levels = self.imprint(images.flatten(1)).clamp(0, 1)
        # all bins below the image's own are at 1: with alternating signs they cancel
        level = (levels * _signs(levels)).sum(1, keepdim=True)
        return QUIET * self.victim(images) + LOUD * level * _signs(images.new_empty(self.num_classes))


def edges_for(batch_size: int, prior: ImagePrior) -> Tensor:
    """Bins that public images fall into about equally often, brightness being near normal.

    Args:
        batch_size: B; a batch of one needs one bin only.
        prior: statistics of the public images.

    Returns:
        float32 [bins + 1], the first below 0 and the last above 1.
    """
    bins = 1 if batch_size == 1 else BINS_PER_SAMPLE * batch_size
    # orthonormal FFT: power at frequency 0 is H * W times the variance of an image's mean
    share = prior.colours.double().mean(1).square()
    deviation = (share * prior.spectrum[:, 0, 0].double()).sum().div(prior.mean_image[0].numel()).sqrt()
    inner = torch.special.ndtri(torch.arange(1, bins, dtype=torch.float64) / bins)
    ends = torch.tensor([-0.01]), torch.tensor([1.01])
    inner = (prior.mean_image.double().mean() + deviation * inner).clamp(0, 1).float()
    return torch.cat([ends[0], inner, ends[1]]).unique()


def _signs(like: Tensor) -> Tensor:
    return 1 - 2 * (torch.arange(like.shape[-1], device=like.device) % 2)

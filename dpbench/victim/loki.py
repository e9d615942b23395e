"""What a server hands out that tells clients apart in their sum: an imprint layer behind a convolution.

The convolution differs from client to client and writes the client's image into channels of its own. So each
client moves other weights of the layer that follows, and the sum over clients holds all of them side by side.
"""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn

from dpbench.protocol import ImageStatistics
from dpbench.victim.imprint import ImprintModel, logits

KERNEL_SCALE = 1000.0
"""What the kernels multiply the image by. The layer behind has its gradient times that and the kernels theirs
divided by it, so that these do not use up the clip norm."""


class ClientImprintModel(nn.Module):
    """`victim` with an imprint layer whose weights are apart for each of several clients (Zhao et al. 2024).

    For client k, the convolution copies the image into the channels of block k, adds one channel that is
    constant there, and leaves all other channels zero. The gradient of the layer's bias is a sum over all
    clients. That of the weights behind the constant takes its place: like those behind the pixels, they move
    for client k alone. They are zero themselves. The bins are those of `ImprintModel`.

    Args:
        victim: takes images [B, C, H, W] in [0, 1].
        edges: ascending brightnesses [bins + 1], for the images of one client.
        statistics: of public images of that size.
        clients: n.
    """

    def __init__(self, victim: nn.Module, edges: Tensor, statistics: ImageStatistics, clients: int) -> None:
        super().__init__()
        alone = ImprintModel(victim, edges, statistics)
        colours, *size = statistics.mean_image.shape
        pixels, bins = math.prod(size), len(edges) - 1
        self.gain, self.shape = alone.gain, (colours, *size)
        self.register_buffer("mean_image", statistics.mean_image.clone())
        self.register_buffer("edges", edges.clone())
        self.statistics = statistics
        self.kernels = nn.Conv2d(colours, clients * (colours + 1), 3, padding=1)
        self.imprint = nn.Linear(self.kernels.out_channels * pixels, bins)
        self.victim = victim
        with torch.no_grad():
            block = torch.cat([alone.imprint.weight / KERNEL_SCALE, torch.zeros(bins, pixels)], 1)
            self.imprint.weight.copy_(block.repeat(1, clients))
            self.imprint.bias.copy_(alone.imprint.bias)
        self.kernels = self._kernels(0)
        self.train(victim.training)

    def forward(self, images: Tensor) -> Tensor:
        """Logits [B, K]."""
        outputs = self.imprint(self.kernels(self.gain * (images - self.mean_image)).flatten(1))
        return logits(outputs, self.victim(images))

    def for_client(self, client: int) -> ClientImprintModel:
        """The model that this client gets; it shares all but the convolution with the others'."""
        sent = copy.copy(self)
        sent._modules = dict(self._modules)
        sent.kernels = self._kernels(client)
        return sent

    def alone(self) -> ImprintModel:
        """The model whose imprint layer has the gradient that each block has here, but for its scale."""
        return ImprintModel(self.victim, self.edges, self.statistics).to(self.edges.device)

    def blocks(self, gradient: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Of each client, the gradients of `alone()`'s weight [bins, C H W] and bias [bins].

        Args:
            gradient: of the layer's weight, [bins, n (C + 1) H W].
        """
        colours, *size = self.shape
        pixels = math.prod(size)
        clients = gradient.unflatten(1, (-1, colours + 1, pixels)).unbind(1)
        return [(each[:, :-1].flatten(1), each[:, -1].sum(1) / math.sqrt(pixels)) for each in clients]

    def _kernels(self, client: int) -> nn.Conv2d:
        colours, pixels = self.shape[0], math.prod(self.shape[1:])
        found = copy.deepcopy(self.kernels)
        with torch.no_grad():
            found.weight.zero_()
            found.bias.zero_()
            first = client * (colours + 1)
            for colour in range(colours):
                found.weight[first + colour, colour, 1, 1] = KERNEL_SCALE
            found.bias[first + colours] = KERNEL_SCALE / math.sqrt(pixels)
        return found

"""A network of your own. `python examples/own_model.py` attacks it, undefended and clipped.

The command line takes it, too: `dpbench run --model examples/own_model.py:tokens --defense clip`.
"""

import torch
from torch import nn

import dpbench


class Tokens(nn.Module):
    """Patches of the image through one transformer layer; returns a dictionary, as many models do."""

    def __init__(self, num_classes, size, width=16):
        super().__init__()
        self.patches = nn.Conv2d(3, width, kernel_size=8, stride=8)
        self.places = nn.Parameter(0.1 * torch.randn((size // 8) ** 2, width))
        self.layer = nn.TransformerEncoderLayer(width, nhead=2, dim_feedforward=32, batch_first=True)
        self.head = nn.Linear(width, num_classes)

    def forward(self, images):
        tokens = self.patches(images - 0.5).flatten(2).transpose(1, 2) + self.places
        features = self.layer(tokens).mean(1)
        return {"logits": self.head(features), "features": features}


def tokens(num_classes, size):
    """The network for so many classes and images of so many pixels a side."""
    return Tokens(num_classes, size)


if __name__ == "__main__":
    one = dpbench.data.draw_batch(dpbench.data.load_data("samples"), 1, seed=0)
    table = dpbench.benchmark(tokens(10, 32), one.images, one.labels, defense="clip", iterations=100)
    print(table[["attack", "defense", "per_sample", "psnr", "lpips"]])

"""LoRA on a frozen vision transformer, whose head is trained as well: python examples/adapters.py.

The command line takes it, too: `dpbench run --model examples/adapters.py:lora --defense clip`.
"""

from torch import nn

import dpbench
from dpbench.victim.networks import build


class LoRA(nn.Module):
    """A frozen linear layer, and a trained product of rank 4 that is added to it."""

    def __init__(self, base, rank=4):
        super().__init__()
        self.base, self.down = base, nn.Linear(base.in_features, rank, bias=False)
        self.up = nn.Linear(rank, base.out_features, bias=False)
        nn.init.zeros_(self.up.weight)  # as LoRA starts: until it moves, `down` has no gradient

    def forward(self, tokens):
        return self.base(tokens) + 2 * self.up(self.down(tokens))


def lora(num_classes, size):
    """The network; what is frozen is not sent."""
    model = build("vit", num_classes=num_classes, size=size).requires_grad_(False)
    for block in model.blocks:
        block.qkv = LoRA(block.qkv)
    model.fc.requires_grad_(True)
    return model


if __name__ == "__main__":
    one = dpbench.data.draw_batch(dpbench.data.load_data("samples"), 1, seed=0)
    table = dpbench.benchmark(lora(10, 32), one.images, one.labels, defense="clip", iterations=20)
    print(table[["attack", "defense", "trained_parameters", "psnr"]])

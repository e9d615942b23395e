"""Trains the small CIFAR-10 victims that dpbench ships: python scripts/train_victims.py [NAME ...].

Writes dpbench/victim/shipped/NAME.safetensors (half precision, batch-norm statistics in float32) and
victims.json with the accuracy of these rounded weights on the 10,000 test images. Training uses the training
set only.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from rich.progress import track
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from dpbench.data import cifar10
from dpbench.victim.networks import build

HOME = Path(__file__).parents[1] / "dpbench" / "victim" / "shipped"
# name -> model, norm to train with, norm to ship as, epochs, peak learning rate, batch size,
# crops and mirroring, bfloat16; transformers are trained by AdamW, the others by SGD
RECIPES = {
    "mlp-none-early": ("mlp", "none", "none", 1, 0.02, 64, False, False),
    "mlp-none-trained": ("mlp", "none", "none", 15, 0.02, 64, False, False),
    "convnet-none-early": ("convnet", "none", "none", 1, 0.05, 64, False, False),
    "convnet-none-trained": ("convnet", "none", "none", 15, 0.05, 64, False, False),
    "vit-none-early": ("vit", "none", "none", 1, 1e-3, 64, False, False),
    "vit-none-trained": ("vit", "none", "none", 25, 1e-3, 64, True, False),
    "resnet20-frozen-bn-early": ("resnet20", "bn", "frozen-bn", 1, 0.1, 128, False, False),
    "resnet20-frozen-bn-trained": ("resnet20", "bn", "frozen-bn", 15, 0.4, 128, True, True),
}


def augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Random crops after 4 pixels of reflection, and mirroring; [B, 3, 32, 32]."""
    b = len(images)
    padded = F.pad(images, (4, 4, 4, 4), mode="reflect")
    dy, dx = torch.randint(0, 9, (2, b), generator=generator)
    rows = (dy[:, None] + torch.arange(32))[:, None, :, None]
    mirrored = torch.arange(32).expand(b, 32)
    flip = torch.rand(b, 1, generator=generator) < 0.5
    columns = (dx[:, None] + torch.where(flip, mirrored.flip(1), mirrored))[:, None, None, :]
    return padded[torch.arange(b)[:, None, None, None], torch.arange(3)[None, :, None, None], rows, columns]


@torch.no_grad()
def evaluate(model: nn.Module, images: Tensor, labels: Tensor) -> tuple[float, float]:
    """Accuracy in [0, 1] and mean cross-entropy over `images`, which are bytes."""
    model.eval()
    logits = torch.cat([model(chunk.float() / 255) for chunk in images.split(1000)])
    return (logits.argmax(1) == labels).float().mean().item(), F.cross_entropy(logits, labels).item()


def train(name: str) -> dict[str, float | str | int]:
    """Trains one recipe, ships its weights, returns its record."""
    arch, norm, ship, epochs, lr, batch, augmented, mixed = RECIPES[name]
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    images, labels = cifar10("train")
    model = build(arch, norm=norm).train().to(memory_format=torch.channels_last)
    if arch == "vit":
        optimizer = torch.optim.AdamW(model.parameters(), lr, weight_decay=0.05)
    else:
        optimizer = torch.optim.SGD(model.parameters(), lr, momentum=0.9, weight_decay=5e-4, nesterov=True)
    steps = epochs * (len(images) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps, pct_start=0.2)
    for epoch in range(epochs):
        order = torch.randperm(len(images), generator=generator)
        for index in track(order.split(batch)[: len(images) // batch], f"{name} epoch {epoch + 1}/{epochs}"):
            x = images[index].float() / 255
            x = (augment(x, generator) if augmented else x).contiguous(memory_format=torch.channels_last)
            with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
                logits = model(x)
            loss = F.cross_entropy(logits.float(), labels[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    kept = {k: v.contiguous() for k, v in model.state_dict().items() if not k.endswith("num_batches_tracked")}
    weights = {k: v if "running" in k else v.half() for k, v in kept.items()}
    HOME.mkdir(exist_ok=True)
    save_file(weights, HOME / f"{name}.safetensors")
    shipped = build(arch, norm=ship)
    shipped.load_state_dict({k: v.float() for k, v in weights.items()})
    accuracy, test_loss = evaluate(shipped, *cifar10("test"))
    _, train_loss = evaluate(shipped, images[:10000], labels[:10000])
    return {
        "accuracy": accuracy,
        "test_loss": test_loss,
        "train_loss": train_loss,
        "epochs": epochs,
        "peak_learning_rate": lr,
        "batch_size": batch,
        "augmented": augmented,
        "bfloat16": mixed,
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    for victim in sys.argv[1:] or RECIPES:
        record = train(victim)
        listing = HOME / "victims.json"
        known = json.loads(listing.read_text()) if listing.exists() else {}
        listing.write_text(json.dumps(known | {victim: record}, indent=2, sort_keys=True) + "\n")
        print(victim, record)

"""Trains the small CIFAR-10 denoiser that dpbench ships: python scripts/train_denoiser.py.

Writes dpbench/generators/denoiser.safetensors (half precision) every `EVERY` steps and denoisers.json at the
end. Ctrl-C ends it early: the step size and the average of the weights do not depend on how many steps are
to come. It uses CIFAR-10's training images only. The record says what the shipped weights make of test
images that no reported result uses.
"""

from __future__ import annotations

import argparse
import copy
import json
import subprocess

import torch
from rich.progress import track
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from dpbench.data import cifar10, draw_disjoint, load_data
from dpbench.generators.denoiser import SHIPPED, Denoiser, load_denoiser
from dpbench.metrics import psnr

HOME = SHIPPED.parent
BATCH, RATE, WARM, STEADY = 64, 2e-3, 300, 2000
CLASSES, UNKNOWN = 10, 0.3
STEPS, EVERY = 17_250, 250
LEVELS, HELD_OUT = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0), range(1000)
AVERAGED = 12
"""The average weighs step t by t to this power (Karras et al. 2024, "Analyzing and improving", section 3)."""


def train(steps: int, seed: int = 0) -> None:
    """Ships the averaged weights every so many steps."""
    torch.manual_seed(seed)
    draws = torch.Generator().manual_seed(seed)
    images, labels = cifar10("train")
    means = torch.stack([images[labels == k].float().mean(0) / 255 for k in range(CLASSES)])
    model = Denoiser(load_data("cifar10").statistics, means).to(memory_format=torch.channels_last)
    average = copy.deepcopy(model).requires_grad_(False)
    optimizer = torch.optim.Adam(model.parameters(), RATE, betas=(0.9, 0.99))
    total, done = 0.0, 0
    try:
        for step in track(range(1, steps + 1), "training"):
            optimizer.param_groups[0]["lr"] = RATE * min(1, step / WARM, (STEADY / step) ** 0.5)
            loss = _loss(model, images, labels, draws)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            with torch.no_grad():
                for slow, fast in zip(average.parameters(), model.parameters(), strict=True):
                    slow.lerp_(fast, 1 - (1 - 1 / step) ** (AVERAGED + 1))
            total, done = total + loss.item(), step
            if step % EVERY == 0:
                print(step, round(total / EVERY, 4), flush=True)
                total = 0.0
                _ship(average, step)
    except KeyboardInterrupt:
        print(f"stopped after {done} of {steps} steps")
    _ship(average, done)


def _loss(model: Denoiser, images: Tensor, labels: Tensor, draws: torch.Generator) -> Tensor:
    """Mean squared error in units of the Wiener filter's, so that every noise level counts alike."""
    index = torch.randint(len(images), (BATCH,), generator=draws)
    x = images[index].float() / 255
    x = torch.where(torch.rand(BATCH, 1, 1, 1, generator=draws) < 0.5, x, x.flip(3))
    x = x.contiguous(memory_format=torch.channels_last)
    y = torch.where(torch.rand(BATCH, generator=draws) < UNKNOWN, -1, labels[index])
    span = torch.tensor([model.smallest, model.largest]).log()
    noise = (span[0] + (span[1] - span[0]) * torch.rand(BATCH, generator=draws)).exp()
    noisy = x + noise[:, None, None, None] * torch.randn(x.shape, generator=draws)
    filtered, error = model.filtered(noisy, noise, y)
    with torch.autocast("cpu", torch.bfloat16):
        found = model.correction(noisy, filtered, noise, y)
    return (found - (x - filtered) / error).square().mean()


def _ship(model: Denoiser, steps: int) -> None:
    half = {name: tensor.half().contiguous() for name, tensor in model.state_dict().items()}
    state = half | {name: getattr(model, name) for name in ("mean_image", "colours", "spectrum")}
    save_file(state, SHIPPED, {"steps": str(steps)})


@torch.no_grad()
def evaluate() -> dict[str, dict[str, float]]:
    """Mean PSNR of held-out images at several noise levels, dB: of the denoiser and of the Wiener filter."""
    data = load_data("cifar10")
    batches = [draw_disjoint(data, 1, seed) for seed in HELD_OUT]
    images, labels = (torch.cat([getattr(b, name) for b in batches]) for name in ("images", "labels"))
    model, draws, found = load_denoiser((3, 32, 32), data.statistics), torch.Generator().manual_seed(0), {}
    for level in LEVELS:
        scores: dict[str, list[Tensor]] = {}
        for x, y in zip(images.split(100), labels.split(100), strict=True):
            noise, nobody = torch.full((len(x),), level), torch.full_like(y, -1)
            noisy = x + level * torch.randn(x.shape, generator=draws)
            for name, estimate in (
                ("denoiser", model(noisy, noise, nobody)),
                ("denoiser, class known", model(noisy, noise, y)),
                ("wiener", model.filtered(noisy, noise)[0]),
                ("wiener, class known", model.filtered(noisy, noise, y)[0]),
            ):
                scores.setdefault(name, []).append(psnr(estimate.clamp(0, 1), x))
        found[str(level)] = {name: round(torch.cat(each).mean().item(), 3) for name, each in scores.items()}
    return found


def record() -> dict[str, object]:
    """What the shipped weights are and how well they do."""
    with safe_open(SHIPPED, "pt") as file:
        steps = int(file.metadata()["steps"])
    head = subprocess.run(("git", "rev-parse", "HEAD"), cwd=HOME, capture_output=True, text=True, check=True)
    return {
        "batch_size": BATCH,
        "bfloat16": True,
        "commit": head.stdout.strip(),
        "data": "CIFAR-10, the 50,000 training images, mirrored at random",
        "held_out": f"CIFAR-10 test images, batch size 1, seeds {HELD_OUT[0]} to {HELD_OUT[-1]}",
        "psnr": evaluate(),
        "seed": 0,
        "steps": steps,
        "torch": torch.__version__,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=STEPS, help="0 only renews the record")
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    if steps := parser.parse_args().steps:
        train(steps)
    text = json.dumps({"cifar10": record()}, indent=2, sort_keys=True)
    HOME.joinpath("denoisers.json").write_text(f"{text}\n")
    print(text)

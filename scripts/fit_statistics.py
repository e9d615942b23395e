"""Fits dpbench/data/statistics/cifar10.safetensors to CIFAR-10's training images."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from dpbench.data import cifar10
from dpbench.data.image_statistics import fit

HOME = Path(__file__).parents[1] / "dpbench" / "data" / "statistics" / "cifar10.safetensors"

if __name__ == "__main__":
    torch.set_num_threads(1)
    images, _ = cifar10("train")
    statistics = fit(images, load_file(HOME)["mean_image"])
    save_file({name: value.contiguous() for name, value in asdict(statistics).items()}, HOME)
    print(f"fitted on {len(images)} images")

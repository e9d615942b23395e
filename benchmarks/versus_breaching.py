"""dpbench and breaching in one process: Inverting Gradients on the same network, gradient, labels and start.

    pip install -e '.[bench]'
    python -m benchmarks.versus_breaching
    python -m benchmarks.versus_breaching --case resnet18:32:1 --iterations 300

Each runs in its best setting. On the CPU breaching runs without TorchScript, which slows it down. It runs
once with PyTorch's batch norm and once with a cheaper affine map of the same values. On a graphics card both
use TF32 and cudnn's benchmark. All take turns; the table shows medians of the repeats. `ratio` is a backend's
rate divided by the faster of breaching's rates.
"""

from __future__ import annotations

import statistics
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import tyro
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks import peer
from benchmarks.cases import Case, Scene, scene, with_affine_norm, with_batch_norm
from benchmarks.engine import BACKENDS, Options, each_case, run
from benchmarks.measure import Row, seconds
from dpbench.data.channels import CIFAR10_MEAN, CIFAR10_STD


def breaching(found: Scene, network: nn.Module, iterations: int) -> Tensor:
    """Its attack: normalised pixels [B, 3, H, W]."""
    return peer.breaching(
        "invertinggradients",
        network,
        found.gradients,
        found.labels,
        found.images.shape[1:],
        CIFAR10_MEAN,
        CIFAR10_STD,
        iterations,
        found.start,
    )


def distance(found: Scene, z: Tensor) -> float:
    """1 - cosine similarity of the gradient at normalised pixels `z` to the released one."""
    mean, std = (torch.tensor(v, device=z.device)[:, None, None] for v in (CIFAR10_MEAN, CIFAR10_STD))
    loss = F.cross_entropy(found.model(z.detach() * std + mean), found.labels)
    trial = torch.autograd.grad(loss, list(found.model.parameters()))
    one, other = (torch.cat([g.flatten() for g in gradients]) for gradients in (trial, found.gradients))
    return 1 - float(F.cosine_similarity(one, other, dim=0))


def measured(case: Case, device: str, iterations: int, repeats: int) -> Iterator[list[Row]]:
    """One row for each way, after each repeat."""
    found = scene(case, device)
    ways: dict[str, Callable[[int], Tensor]] = {}
    ways["breaching"] = lambda n: breaching(found, with_batch_norm(found.model, case), n)
    if "resnet" in case.model:
        affine = with_affine_norm(found.model)
        ways["breaching, affine norm"] = lambda n: breaching(found, affine, n)
    for engine in BACKENDS[device]:
        ran = run(found, engine, 2).engine  # it may have fallen back, and says so
        ways[f"dpbench {ran}"] = lambda n, e=engine: run(found, e, n).found[0].variables[0]
    for way in ways.values():
        way(3)
    times: dict[str, list[float]] = {name: [] for name in ways}
    images: dict[str, Tensor] = {}
    for _ in range(repeats):
        for name, way in ways.items():
            took = seconds(lambda w=way, n=name: images.update({n: w(iterations)}), device)
            times[name].append(took)
        medians = {name: 1000 * statistics.median(taken) / iterations for name, taken in times.items()}
        peer = min(median for name, median in medians.items() if name.startswith("breaching"))
        yield [
            {
                "case": str(case),
                "way": name,
                "ms/iteration": median,
                "ratio": peer / median,
                "iterations": iterations,
                "distance": distance(found, images[name]),
                "PSNR dB": found.psnr(images[name]),
            }
            for name, median in medians.items()
        ]


@dataclass(frozen=True)
class VersusOptions(Options):
    """Side by side with breaching.

    Attributes:
        jit: leave TorchScript on.
    """

    jit: bool = False


def main(options: VersusOptions) -> None:
    """Measure and show."""
    device = options.kind()
    warnings.filterwarnings("ignore", module="hydra|omegaconf|breaching")
    if device == "cpu" and not options.jit:
        peer.without_torchscript()
    each_case(
        options,
        lambda case, on: measured(case, on, options.iterations, options.repeats),
        "Inverting Gradients: dpbench and breaching",
        "versus_breaching",
    )


if __name__ == "__main__":
    main(tyro.cli(VersusOptions))

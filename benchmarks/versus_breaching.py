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
from types import SimpleNamespace
from typing import Any

import torch
import tyro
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.cases import Case, Scene, scene, with_affine_norm, with_batch_norm
from benchmarks.engine import BACKENDS, Options, each_case, run
from benchmarks.measure import Row, seconds
from dpbench.data.channels import CIFAR10_MEAN, CIFAR10_STD


class Metadata(SimpleNamespace):
    """What breaching calls metadata of the data: attributes that are also items."""

    def __getitem__(self, name: str) -> Any:
        return getattr(self, name)


def breaching(found: Scene, network: nn.Module, iterations: int) -> Tensor:
    """Its attack: normalised pixels [B, 3, H, W]."""
    import breaching

    body, device = network, found.images.device
    body.normalise = nn.Identity()  # breaching shows a network normalised images
    override = [f"optim.max_iterations={iterations}"]
    config = breaching.get_attack_config("invertinggradients", overrides=override)
    setup = {"device": device, "dtype": torch.float32}
    attacker = breaching.attacks.prepare_attack(body, nn.CrossEntropyLoss(), config, setup)
    metadata = Metadata(
        shape=list(found.images.shape[1:]),
        classes=found.case.classes,
        mean=CIFAR10_MEAN,
        std=CIFAR10_STD,
        normalize=True,
        modality="vision",
        task="classification",
    )
    payload = {"parameters": list(body.parameters()), "buffers": list(body.buffers()), "metadata": metadata}
    count = {"num_data_points": len(found.images), "labels": found.labels, "local_hyperparams": None}
    shared = {"gradients": [g.clone() for g in found.gradients], "buffers": None, "metadata": count}
    guess, _ = attacker.reconstruct([payload], [shared], {}, initial_data=found.start)
    return guess["data"]


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
        torch.jit._state.disable()  # what PYTORCH_JIT=0 does; breaching is imported later
    each_case(
        options,
        lambda case, on: measured(case, on, options.iterations, options.repeats),
        "Inverting Gradients: dpbench and breaching",
        "versus_breaching",
    )


if __name__ == "__main__":
    main(tyro.cli(VersusOptions))

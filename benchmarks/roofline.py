"""How close each backend comes to the limits of the device.

    python -m benchmarks.roofline
    python -m benchmarks.roofline --case resnet50:224:8

The bound adds up two kinds of operations, convolutions and matrix products. Each takes the longer of two
times: its arithmetic at the highest measured rate, or moving its inputs and outputs once at the measured
copying rate. Everything else is assumed to be fused into them at no cost. The rates are measured in the same
run: the better of a large matrix product and a convolution (with TF32 on a graphics card), and a large copy.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from typing import Any

import torch
import tyro
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from benchmarks.cases import Case, Scene, scene
from benchmarks.engine import BACKENDS, Options, each_case, run
from benchmarks.measure import Row, seconds


class Work(TorchDispatchMode):
    """Notes each convolution's and matrix product's operations and bytes.

    Attributes:
        done: (floating-point operations, bytes in and out), in the order they were run.
    """

    def __init__(self) -> None:
        super().__init__()
        self.done: list[tuple[int, int]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        """Note one."""
        made = func(*args, **(kwargs or {}))
        if func._overloadpacket in flop_registry:
            operations = flop_registry[func._overloadpacket](*args, **(kwargs or {}), out_val=made)
            tensors = [t for t in tree_leaves((args, made)) if isinstance(t, Tensor)]
            self.done.append((operations, sum(t.numel() * t.element_size() for t in tensors)))
        return made


def work(found: Scene) -> list[tuple[int, int]]:
    """That of one iteration: a search of two less a search of one, which is how it ends."""
    counts = []
    for iterations in (1, 2):
        with Work() as noted:
            run(found, "eager", iterations)
        counts.append(noted.done)
    return counts[1][len(counts[0]) :]


def ceilings(device: str, repeats: int) -> tuple[float, float]:
    """Floating-point operations and bytes per second."""
    side, width, length = (8192, 256, 2**28) if device == "cuda" else (1024, 64, 2**25)
    a, b = (torch.randn(side, side, device=device) for _ in range(2))
    images = torch.randn(32, width, 32, 32, device=device).to(memory_format=torch.channels_last)
    weights = torch.randn(width, width, 3, 3, device=device).to(memory_format=torch.channels_last)
    source, target = (torch.zeros(length, device=device) for _ in range(2))

    def rate(amount: float, way: Callable[[], Any]) -> float:
        way()
        return amount / statistics.median(seconds(way, device) for _ in range(repeats))

    product = rate(2 * side**3, lambda: a @ b)
    convolution = rate(
        2 * 9 * images.numel() * width,
        lambda: F.conv2d(images, weights, padding=1),
    )
    return max(product, convolution), rate(2 * 4 * length, lambda: target.copy_(source))


def measured(case: Case, device: str, iterations: int, repeats: int) -> Iterator[list[Row]]:
    """One row for each backend, as soon as it is measured."""
    found = scene(case, device)
    done = work(found)
    rate, bandwidth = ceilings(device, 3 * repeats)
    bound = 1000 * sum(max(operations / rate, moved / bandwidth) for operations, moved in done)
    rows = []
    for engine in BACKENDS[device]:
        ran = run(found, engine, 2).engine
        times = [seconds(lambda e=engine: run(found, e, iterations), device) for _ in range(repeats)]
        median = 1000 * statistics.median(times) / iterations
        rows.append(
            {
                "case": str(case),
                "engine": ran,
                "GFLOP": sum(operations for operations, _ in done) / 1e9,
                "MB": sum(moved for _, moved in done) / 1e6,
                "GFLOP/s": rate / 1e9,
                "GB/s": bandwidth / 1e9,
                "bound ms": bound,
                "ms/iteration": median,
                "times bound": median / bound,
            }
        )
        yield [*rows]


def main(options: Options) -> None:
    """Measure and show."""
    each_case(
        options,
        lambda case, on: measured(case, on, options.iterations, options.repeats),
        "Roofline",
        "roofline",
    )


if __name__ == "__main__":
    main(tyro.cli(Options))

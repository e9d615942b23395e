"""What per-sample clipping costs compared with a plain gradient of the same batch: time and memory.

    python -m benchmarks.defence
    python -m benchmarks.defence --case resnet50:224:48

The clipped release includes the checks that its per-sample gradients and clipped norms are right. The two run
alternately; the table shows medians of the repeats.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator

import torch
import tyro
from torch.nn import functional as F

import defenses
from benchmarks.cases import Case, scene
from benchmarks.engine import Options, each_case
from benchmarks.measure import Row, peak, seconds


def measured(case: Case, device: str, repeats: int) -> Iterator[list[Row]]:
    """One row for each way, after each repeat."""
    found = scene(case, device)
    parameters = list(found.model.parameters())
    clip = defenses.create("clip", max_grad_norm=1.0)
    ways = {
        "plain": lambda: torch.autograd.grad(
            F.cross_entropy(found.model(found.images), found.labels), parameters
        ),
        "clipped": lambda: clip.release(found.model, F.cross_entropy, found.images, found.labels, seed=0),
    }
    memory = {}
    for name, way in ways.items():
        way()
        with peak(device) as mib:
            way()
        memory[name] = mib()
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            times[name].append(seconds(way, device))
        medians = {name: 1000 * statistics.median(taken) for name, taken in times.items()}
        yield [
            {
                "case": str(case),
                "gradient": name,
                "ms": median,
                "times plain": median / medians["plain"],
                "peak MiB": memory[name],
            }
            for name, median in medians.items()
        ]


def main(options: Options) -> None:
    """Measure and show."""
    each_case(options, lambda case, on: measured(case, on, options.repeats), "Per-sample clipping", "defence")


if __name__ == "__main__":
    main(tyro.cli(Options))

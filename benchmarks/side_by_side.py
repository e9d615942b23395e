"""Searches of one shape side by side in one process, by `torch.func.vmap`, compared with one after the other.

    python -m benchmarks.side_by_side
    python -m benchmarks.side_by_side --case resnet20:32:4 --cells 2

The gradient of an iteration's distance, as PyTorch computes it and as Inductor compiles it; every cell has a
batch, labels and a release of its own. `gain` is the time of one cell alone divided by its share of the time
of all; the ways take turns, and the table shows medians.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import tyro
from torch import Tensor
from torch.func import functional_call, grad, vmap
from torch.nn import functional as F

from attacks.objectives import Cosine
from benchmarks.cases import Case, Scene, scene
from benchmarks.engine import Options, each_case
from benchmarks.measure import Row, seconds


@dataclass(frozen=True)
class SideOptions(Options):
    """Cells side by side.

    Attributes:
        cells: how many at once.
    """

    cells: tuple[int, ...] = (2, 4, 8)


def question(found: Scene) -> Callable[..., Tensor]:
    """From images [B, 3, H, W], labels [B] and a release to the gradient of 1 - cosine by the images."""
    model = found.model
    fixed = dict(model.named_buffers())
    weights = {name: p.detach() for name, p in model.named_parameters()}
    objective = Cosine()

    def distance(images: Tensor, labels: Tensor, release: Sequence[Tensor]) -> Tensor:
        def loss(parameters: dict[str, Tensor]) -> Tensor:
            return F.cross_entropy(functional_call(model, parameters | fixed, (images,)), labels)

        value, _ = objective(list(grad(loss)(weights).values()), release)
        return value

    return grad(distance)


def compiled(function: Callable[..., Tensor], arguments: Sequence[Any]) -> Callable[[], Tensor]:
    """As the engine does it: traced, then compiled by Inductor."""
    import torch._inductor
    from torch.fx.experimental.proxy_tensor import make_fx

    flat, structure = torch.utils._pytree.tree_flatten(list(arguments))
    traced = make_fx(lambda *given: function(*torch.utils._pytree.tree_unflatten(list(given), structure)))(
        *flat
    )
    traced.graph.eliminate_dead_code()
    traced.recompile()
    with torch.no_grad():
        program = torch._inductor.compile(traced, flat)
    return lambda: program(*flat)


def measured(case: Case, device: str, iterations: int, repeats: int, cells: int) -> Iterator[list[Row]]:
    """A row for PyTorch's operations and one for a program, after each repeat."""
    found = scene(case, device)
    alone = question(found)
    one = (found.start, found.labels, list(found.gradients))
    all_of_them = (
        found.start.expand(cells, *found.start.shape).clone(),
        found.labels.expand(cells, -1).clone(),
        [g.expand(cells, *g.shape).clone() for g in found.gradients],
    )
    ways = {
        "eager": (lambda: alone(*one), lambda: vmap(alone)(*all_of_them)),
        "compiled": (compiled(alone, one), compiled(vmap(alone), all_of_them)),
    }
    times: dict[tuple[str, int], list[float]] = {(name, i): [] for name in ways for i in range(2)}
    for _ in range(repeats):
        for name, pair in ways.items():
            for i, way in enumerate(pair):
                way()
                count = max(1, iterations // (cells if i else 1))

                def work(way: Callable[[], Tensor] = way, count: int = count) -> None:
                    for _ in range(count):
                        way()

                times[name, i].append(1000 * seconds(work, device) / count / (cells if i else 1))
        rows = []
        for name in ways:
            single, shared = (statistics.median(times[name, i]) for i in range(2))
            rows.append(
                {
                    "case": str(case),
                    "engine": name,
                    "cells": cells,
                    "ms alone": single,
                    "ms side by side": shared,
                    "gain": single / shared,
                }
            )
        yield rows


def main(options: SideOptions) -> None:
    """Measure and show."""

    def every(case: Case, device: str) -> Iterator[list[Row]]:
        before: list[Row] = []
        for cells in options.cells:
            rows: list[Row] = []
            for rows in measured(case, device, options.iterations, options.repeats, cells):
                yield before + rows
            before += rows

    each_case(
        options, every, "Searches of one shape side by side, ms for each one's gradient", "side_by_side"
    )


if __name__ == "__main__":
    main(tyro.cli(SideOptions))

"""Where cells run: here, in workers of this machine, or on a Ray cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from dpbench.cell.grid import Cell
from dpbench.cell.trial import CellResult, run_cell

CellProgress = Callable[[Cell, int, int, float], None]
"""(cell, iterations done, iterations in all, objective value) -> None."""
NAMES = ("local", "workers", "ray")
TRIES = 3
"""How often a cell is begun whose process is killed, before it counts as failed."""


class Executor(Protocol):
    """Runs cells, in any order and anywhere, and hands each result over as it is finished.

    Attributes:
        slots: how many cells run at a time.
    """

    slots: int

    def __call__(self, cells: Iterable[Cell], progress: CellProgress) -> Iterator[tuple[Cell, CellResult]]:
        """Takes a cell from `cells` only when there is room to run it."""
        ...


class Local:
    """Cells run in this process, one after the other."""

    slots = 1

    def __call__(self, cells: Iterable[Cell], progress: CellProgress) -> Iterator[tuple[Cell, CellResult]]:
        """See `Executor`."""
        for cell in cells:

            def inner(done: int, total: int, value: float, cell: Cell = cell) -> None:
                progress(cell, done, total, value)

            yield cell, run_cell(cell, inner)


def create(
    name: str, device: str, workers: int | None = None, ray_address: str = "auto", gpus_per_cell: float = 1.0
) -> Executor:
    """The executor of that name.

    Args:
        name: one of `NAMES`.
        device: `cpu` or `cuda`: what the cells run on.
        workers: how many processes `workers` starts; None is one per graphics card, or per core on the CPU.
        ray_address: the cluster `ray` uses, in Ray's own words.
        gpus_per_cell: share of a graphics card that `ray` reserves for a cell.

    Raises:
        InputError: Ray is not installed, or no cluster answers.
    """
    if name == "workers":
        from dpbench.sweep.executors.workers import Workers

        return Workers(device, workers)
    if name == "ray":
        from dpbench.sweep.executors.ray import Ray

        return Ray(device, ray_address, gpus_per_cell)
    return Local()

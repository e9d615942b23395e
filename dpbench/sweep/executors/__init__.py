"""Where cells run: here, in workers of this machine, or on a Ray cluster."""

from __future__ import annotations

from collections.abc import Sequence

from dpbench.cell.spec import Cell
from dpbench.sweep.executors.base import TRIES, CellProgress, Executor
from dpbench.sweep.executors.local import Local

__all__ = ["TRIES", "CellProgress", "Executor", "Local", "create"]


def create(
    name: str,
    device: str,
    workers: int | None = None,
    ray_address: str = "auto",
    gpus_per_cell: float = 1.0,
    cells: Sequence[Cell] = (),
) -> Executor:
    """The executor of that name.

    Args:
        name: `local`, `workers`, `ray`, or `auto`: `workers` where they pay or their number is given.
        device: `cpu` or `cuda`: what the cells run on.
        workers: how many processes `workers` starts; None is one per graphics card, or per core on the CPU.
        ray_address: the cluster `ray` uses, in Ray's own words.
        gpus_per_cell: share of a graphics card that `ray` reserves for a cell.
        cells: what is to be run; `auto` looks at them.

    Raises:
        InputError: Ray is not installed, or no cluster answers.
    """
    if name == "auto":
        from dpbench.sweep.executors.choice import auto

        name = "workers" if workers is not None else auto(cells, device)
    if name == "workers":
        from dpbench.sweep.executors.workers import Workers

        return Workers(device, workers)
    if name == "ray":
        from dpbench.sweep.executors.ray import Ray

        return Ray(device, ray_address, gpus_per_cell)
    return Local()

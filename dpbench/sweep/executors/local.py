"""Cells in this process."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from dpbench.cell.result import CellResult
from dpbench.cell.run import Scenes, run_cell
from dpbench.cell.scene import prepare
from dpbench.cell.spec import Cell
from dpbench.sweep.executors.base import CellProgress


class Local:
    """Cells run in this process, one after the other.

    Args:
        scenes: where batches and victims are from.
    """

    slots = 1

    def __init__(self, scenes: Scenes = prepare) -> None:
        self._scenes = scenes

    def __call__(self, cells: Iterable[Cell], progress: CellProgress) -> Iterator[tuple[Cell, CellResult]]:
        """See `dpbench.sweep.executors.base.Executor`."""
        for cell in cells:

            def inner(done: int, total: int, value: float, cell: Cell = cell) -> None:
                progress(cell, done, total, value)

            yield cell, run_cell(cell, inner, scenes=self._scenes)

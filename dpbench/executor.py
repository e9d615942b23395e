"""Where cells run. One way so far: in this process, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from dpbench.grid import Cell
from dpbench.trial import CellResult, run_cell

CellProgress = Callable[[Cell, int, int, float], None]
"""(cell, iterations done, iterations in all, objective value) -> None."""
Executor = Callable[[Iterable[Cell], CellProgress], Iterator[tuple[Cell, CellResult]]]
"""Runs cells, in any order and anywhere, and hands each result over as it is finished."""


def local(cells: Iterable[Cell], progress: CellProgress) -> Iterator[tuple[Cell, CellResult]]:
    """Runs `cells` here, in their order."""
    for cell in cells:

        def inner(done: int, total: int, value: float, cell: Cell = cell) -> None:
            progress(cell, done, total, value)

        yield cell, run_cell(cell, inner)

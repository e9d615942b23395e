"""What an executor is: it runs cells, anywhere and in any order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from dpbench.cell.result import CellResult
from dpbench.cell.spec import Cell

CellProgress = Callable[[Cell, int, int, float], None]
"""(cell, iterations done, iterations in all, objective value) -> None."""
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

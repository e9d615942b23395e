"""One run of a sweep in a folder: what is missing is run, and what is there already is kept."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from rich.console import Console

from dpbench.cell.rows import describe
from dpbench.cell.spec import Cell
from dpbench.store import Store
from dpbench.sweep import loop
from dpbench.sweep.executors import Executor
from dpbench.sweep.progress import Display


@dataclass(frozen=True)
class Session:
    """The cells of a run and the folder they are kept in.

    Attributes:
        results: the folder.
        cells: what belongs to the run, by key.
    """

    results: Store
    cells: dict[str, Cell] = field(repr=False)

    @classmethod
    def begin(cls, results: Store, cells: Iterable[Cell]) -> Session:
        """Note in the folder which cells belong to the run.

        Raises:
            InputError: the disk is full or the folder cannot be written.
        """
        session = cls(results, {cell.key(): cell for cell in cells})
        results.expect((key, describe(cell)) for key, cell in session.cells.items())
        return session

    def missing(self) -> list[Cell]:
        """The cells that are not done, in the order they run."""
        done = self.results.done()
        return [cell for key, cell in self.cells.items() if key not in done]

    def strays(self) -> list[str]:
        """Keys of files in the folder that belong to other cells: an older version's, or copied in."""
        return sorted(set(self.results.keys()) - self.cells.keys())

    def run(self, missing: Sequence[Cell], execute: Executor, console: Console, quiet: bool = False) -> None:
        """Every cell of `missing` is in the folder afterwards.

        Raises:
            InputError: the disk is full or the folder cannot be written; what is there stays.
        """
        if missing:
            with Display(list(missing), console, quiet) as display:
                loop.run(missing, self.results, execute, display)

"""One run of a sweep in a folder: what is missing is run, and what is there already is kept."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from rich.console import Console

from dpbench.cell.rows import describe
from dpbench.cell.spec import Cell
from dpbench.store import Store
from dpbench.store.folder import ASIDE
from dpbench.sweep import loop
from dpbench.sweep.claims import Claims, running
from dpbench.sweep.executors import Executor
from dpbench.sweep.progress import Display
from dpbench.system.words import counted


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

    def sort_out(self) -> list[str]:
        """Set aside what belongs to other cells, and bring back what an earlier run set aside of these.

        While another process is at work in the folder nothing is set aside: the cells may be its own.

        Returns:
            A sentence for each kind of cell that was found.

        Raises:
            InputError: the folder cannot be written.
        """
        folder, found = self.results.path, []
        if back := self.results.bring_back(self.cells):
            found.append(f"{counted(back, 'cell')} of this run had been set aside in {folder}; brought back.")
        if strays := set(self.results.keys()) - self.cells.keys():
            line = f"{folder} holds {counted(len(strays), 'cell')} of other code or another run"
            if running(folder / loop.RUNNING):
                found.append(f"{line}; another process is at work there, so nothing is moved.")
            else:
                self.results.set_aside(strays)
                found.append(f"{line}, set aside in {folder / ASIDE}.")
        return found

    def run(self, missing: Sequence[Cell], execute: Executor, console: Console, quiet: bool = False) -> None:
        """Every cell of `missing` is in the folder afterwards.

        Raises:
            InputError: the disk is full or the folder cannot be written; what is there stays.
        """
        if missing:
            with Display(list(missing), console, quiet) as display:
                loop.run(missing, self.results, execute, display)
        else:
            with Claims(self.results.path / loop.RUNNING):  # clears away what killed processes had in hand
                pass

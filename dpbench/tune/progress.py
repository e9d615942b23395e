"""What is shown while an attack is tuned: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time

from rich.console import Console

from dpbench.cell.result import CellResult
from dpbench.cell.rows import describe
from dpbench.cell.spec import Cell
from dpbench.sweep.progress import duration
from dpbench.sweep.shown import Shown


class Display(Shown):
    """A context manager around a tuning.

    Args:
        console: where to show it.
        quiet: show nothing.
    """

    def __init__(self, console: Console, quiet: bool = False) -> None:
        super().__init__(console, quiet)
        self._done = self._run = self._total = 0
        self._spent, self._begun = 0.0, time.monotonic()
        self._what = ""
        self._task = self._bar.add_task("", total=1, state="")

    def total(self, searches: int) -> None:
        """How many searches there are in all, those in the folder included."""
        self._total = searches

    def round(self, what: str, there: int) -> None:
        """The next trial of every setting begins; `there` of its searches are in the folder already."""
        self._what, self._done, self._begun = what, self._done + there, time.monotonic()
        self._show()

    def iteration(self, cell: Cell, done: int, total: int, value: float) -> None:
        """`done` of `total` iterations of `cell` are over; each cell is short beside the whole."""

    def finished(self, cell: Cell, result: CellResult) -> None:
        """`cell` is over."""
        now = time.monotonic()
        self._run, self._spent, self._begun = self._run + 1, self._spent + now - self._begun, now
        self._done += 1
        self._show()
        if result.status == "failed":
            self.say(f"{describe(cell)}: {result.status}. {result.rows[0]['error']}")

    def say(self, line: str) -> None:
        """A line that stays."""
        self._say(line)

    def _show(self) -> None:
        state = f"{self._done} of {self._total} searches"
        if self._run:  # what was in the folder already takes no time
            each = self._spent / self._run
            state += f", {each:.1f} s each, {duration((self._total - self._done) * each)} left"
        self._bar.update(
            self._task, completed=self._done, total=self._total, description=self._what, state=state
        )
        self._now_and_then(f"{self._what}: {state}")

"""What is shown while a frontier is measured: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time

from rich.console import Console

from dpbench.cell.result import CellResult
from dpbench.cell.spec import Cell
from dpbench.frontier.evidence import Watch
from dpbench.frontier.result import Level
from dpbench.privacy.rounding import up
from dpbench.sweep.progress import duration
from dpbench.sweep.shown import Shown
from dpbench.system.words import counted


class Display(Shown):
    """A context manager around a measurement.

    Args:
        console: where to show it.
        quiet: show nothing.
    """

    def __init__(self, console: Console, quiet: bool = False) -> None:
        super().__init__(console, quiet)
        self._where, self._attacks = "", 1
        self._run, self._spent, self._begun = 0, 0.0, time.monotonic()
        self._task = self._bar.add_task("", total=1, state="")

    def level(self, threat_model: str, sigma: float, watch: Watch) -> None:
        """A noise level begins."""
        self._where = f"{threat_model}, {'no defence' if sigma == 0 else f'σ {up(sigma)}'}"
        self._attacks = len(watch.successes)
        self._bar.reset(self._task, total=watch.most, description=self._where, state="")

    def iteration(self, cell: Cell, done: int, total: int, value: float) -> None:
        """`done` of `total` iterations of `cell` are over; each cell is short beside the whole."""

    def finished(self, cell: Cell, result: CellResult) -> None:
        """`cell` is over."""
        now = time.monotonic()
        self._run, self._spent, self._begun = self._run + 1, self._spent + now - self._begun, now

    def batch(self, watch: Watch) -> None:
        """One more batch of the level is counted."""
        left = watch.batches_left
        ranked = " and ".join(map(str, watch.successes))
        state = f"{counted(watch.trials, 'batch', plural='batches')}, {ranked} ranked first"
        if self._run:  # what was in the folder already takes no time
            each = self._spent / self._run * self._attacks
            state += f", {each:.1f} s a batch, {duration(left * each)} left at this level if no more do"
        self._bar.update(self._task, completed=watch.trials, total=watch.trials + left, state=state)
        self._begun = time.monotonic()
        self._now_and_then(f"{self._where}: {state}")

    def ended(self, level: Level) -> None:
        """A noise level is over; whether its verdict counts is known once the sequences have ended."""
        counts = "; ".join(f"{each.attack} {each.successes} of {each.trials}" for each in level.rates)
        self._say(f"{self._where}: {counts}" + (f": {level.verdict} by itself" if level.verdict else ""))

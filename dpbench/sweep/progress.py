"""What is shown while cells run: a bar on a terminal, plain lines elsewhere, nothing under --quiet."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from types import TracebackType
from typing import NamedTuple

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column

from dpbench.cell.floors import OF_A_BATCH
from dpbench.cell.result import CellResult
from dpbench.cell.rows import attack_and_defence, describe, of_attack
from dpbench.cell.spec import Cell
from dpbench.system.output import plain
from dpbench.system.words import per_cent

WAITING = 5.0
"""Seconds after which it is said whom a run waits for."""
NAMED = 3
"""Cells that are named then."""
SILENCE = 20.0
"""Seconds after which a cell that is still running says so where there is no bar."""


class _Hand(NamedTuple):
    """A cell that is being run: when it was begun, when its search was, and the share that is done."""

    begun: float
    searching: float
    share: float = 0.0


class Display:
    """A context manager around a run of `cells`.

    Args:
        cells: what is to be run.
        console: where to show it.
        quiet: show nothing.
    """

    def __init__(self, cells: list[Cell], console: Console, quiet: bool = False) -> None:
        self._total, self._console, self._quiet = len(cells), console, quiet
        self._finished = self._failed = 0
        self._best = -math.inf
        self._compiling = 0.0
        self._awaited: dict[Cell, str] = {}
        self._hand: dict[Cell, _Hand] = {}  # executors run several at once
        self._start = self._begun = self._said = time.monotonic()
        self._searches = sum(_searches(cell) for cell in cells)
        self._searched = 0
        self._bar = Progress(
            TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True, ratio=1)),
            BarColumn(bar_width=12),
            TextColumn("{task.fields[cells]}"),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            TextColumn("left"),
            expand=True,
            console=console,
            transient=True,
            disable=quiet or not console.is_terminal,
            speed_estimate_period=120,
        )
        self._task = self._bar.add_task("", total=self._searches, cells=f"0/{self._total} cells", rate="")

    def __enter__(self) -> Display:
        if not self._bar.disable:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self._bar.disable:  # rich ends with an empty line even then
            self._bar.stop()

    def iteration(self, cell: Cell, done: int, total: int, value: float) -> None:
        """`done` of `total` iterations of `cell` are over; with none done and a NaN value it compiles."""
        now = time.monotonic()
        hand = self._hand.get(cell) or _Hand(*[now if self._hand else self._begun] * 2)
        if done == 0:  # what comes before the search does not count for its speed
            hand = hand._replace(searching=now)
        self._hand[cell] = hand._replace(share=done / max(total, 1))
        taken, compiling = now - hand.searching, done == 0 and math.isnan(value)
        rate = speed(done, taken) if done else ""
        description = f"compiling: {attack_and_defence(cell)}" if compiling else attack_and_defence(cell)
        self._bar.update(self._task, completed=self._reached(), description=plain(description), rate=rate)
        if self._quiet or self._console.is_terminal:
            return
        if compiling:
            self._say(f"{describe(cell)}: compiling")
        elif done and now - self._said > SILENCE:
            left = duration((total - done) * taken / done)
            self._say(f"{describe(cell)}: {done}/{total} iterations, {rate}, about {left} left")

    def finished(self, cell: Cell, result: CellResult) -> None:
        """`cell` is over."""
        now = time.monotonic()
        begun = self._hand.pop(cell, _Hand(self._begun, now)).begun
        self._begun = now
        self._finished += 1
        self._failed += result.status == "failed"
        self._searched += _searches(cell)
        rows = result.rows[: cell.batch.batch_size]
        compiling = rows[0].get("compile_seconds") or 0.0
        self._compiling += compiling
        judged = of_attack(rows) if result.status == "ok" else []
        values = [row["psnr"] for row in judged if row.get("psnr") is not None]
        if not cell.floor:
            self._best = max([self._best, *values])
        self._bar.update(self._task, completed=self._reached(), cells=self._count())
        if result.status != "ok":
            self._say(f"{describe(cell)}: {result.status}. {result.rows[0]['error']}")
        elif not self._quiet and not self._console.is_terminal:
            if "success" in rows[0]:
                found = f"{per_cent(rows[0]['success'])}% right"
            else:
                found = f"{sum(values) / len(values):.1f} dB" if values else "done"
            left = (self._total - self._finished) * (now - self._start) / self._finished
            took = f"{now - begun:.1f} s" + (f", {compiling:.1f} s of it compiling" if compiling else "")
            self._say(
                f"[{self._finished}/{self._total}] {describe(cell)}: {found}, {took}; "
                f"so far {self._count()}, {duration(left)} left"
            )

    def waiting(self, held: Mapping[Cell, str]) -> None:
        """Nothing is left but what other processes have in hand: said after a while, and when it changes.

        Args:
            held: the cells, and who has each.
        """
        if self._quiet or held == self._awaited or time.monotonic() - self._begun <= WAITING:
            return
        self._awaited = dict(held)
        named = [f"{describe(cell)} ({who})" for cell, who in list(held.items())[:NAMED]]
        more = [f"{len(held) - NAMED} more"] if len(held) > NAMED else []
        if named:
            self._say(
                f"Waiting for cells that other processes run: {', '.join(named + more)}. "
                "A stopped process goes on after kill -CONT; where one is ended, its cells are run here."
            )

    def _reached(self) -> float:
        return self._searched + sum(hand.share for hand in self._hand.values())

    def _count(self) -> str:
        words = [f"{self._finished}/{self._total} cells"]
        if self._failed:
            words.append(f"{self._failed} failed")
        if self._best > -math.inf:
            words.append(f"best {self._best:.1f} dB")
        if self._compiling:
            words.append(f"{duration(self._compiling)} compiling")
        return ", ".join(words)

    def _say(self, line: str) -> None:
        self._said = time.monotonic()
        self._console.print(plain(line), markup=False, highlight=False, soft_wrap=True)


def speed(iterations: int, seconds: float) -> str:
    """Iterations per second, or seconds per iteration where that is the larger number.

    Example:
        >>> speed(300, 4.0), speed(3, 60.0)
        ('75 it/s', '20 s/it')
    """
    per_second = iterations / max(seconds, 1e-9)
    return f"{per_second:.0f} it/s" if per_second >= 1 else f"{1 / max(per_second, 1e-9):.0f} s/it"


def duration(seconds: float) -> str:
    """Seconds in the unit that a reader can picture.

    Example:
        >>> duration(59), duration(200), duration(10_000), duration(1e6)
        ('59 s', '3.3 minutes', '2.8 hours', '11.6 days')
    """
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"


def _searches(cell: Cell) -> int:
    return int(cell.floor not in OF_A_BATCH)

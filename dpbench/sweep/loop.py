"""Runs the cells that are missing in a folder, whoever else is at work there."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import closing

from dpbench.cell.spec import Cell
from dpbench.store import Store
from dpbench.sweep.claims import Claims, running
from dpbench.sweep.executors import Executor
from dpbench.sweep.progress import Display

RUNNING = "running"
"""The folder of claims within a run's folder."""
PATIENCE = 1.0
"""Seconds between looks at cells that another process has in hand."""


def run(cells: Iterable[Cell], results: Store, execute: Executor, display: Display) -> None:
    """Every cell of `cells` is in `results` afterwards: run here, or by another process on the same folder.

    Raises:
        InputError: the disk is full or the folder cannot be written; what is there stays.
    """
    left = {cell.key(): cell for cell in cells}
    with Claims(results.path / RUNNING) as claims:
        while left:
            with closing(execute(_free(left, results, claims), display.iteration)) as finished:
                for cell, result in finished:
                    key = cell.key()
                    pictures = (result.images, result.originals) if len(result.images) else (None, None)
                    searched = {"history": result.history, "history_steps": result.history_steps}
                    results.write(key, result.rows, *pictures, **searched)
                    results.log(key, result.log)
                    claims.release(key)
                    display.finished(cell, result)
            if left:
                others = running(results.path / RUNNING)
                display.waiting({cell: others[key] for key, cell in left.items() if key in others})
                time.sleep(PATIENCE)


def _free(left: dict[str, Cell], results: Store, claims: Claims) -> Iterator[Cell]:
    """Takes the cells of `left` that nobody has in hand, each when it is asked for."""
    for key, cell in list(left.items()):
        if not claims.take(key):
            continue
        del left[key]
        if results.has(key):
            claims.release(key)
        else:
            yield cell

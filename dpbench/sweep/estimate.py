"""What a sweep will cost, from running a little of one cell of each shape."""

from __future__ import annotations

import resource
import sys
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch

from dpbench.cell import parts
from dpbench.cell.rows import describe
from dpbench.cell.run import measure
from dpbench.cell.scene import prepare
from dpbench.cell.spec import Cell
from dpbench.protocol import InputError
from dpbench.sweep.progress import duration

PROBE = 1.0
"""Seconds that a search is watched for."""
Shape = tuple[object, ...]


@dataclass(frozen=True)
class Estimate:
    """What a sweep costs.

    Attributes:
        seconds: of all cells, one after the other.
        memory: peak of one process, bytes.
        gpu_memory: peak on the graphics card, bytes; 0 without one.
        shapes: how many kinds of cell were timed.
    """

    seconds: float
    memory: int
    gpu_memory: int
    shapes: int

    def sentence(self, slots: int) -> str:
        """For `slots` cells at a time."""
        gpu = f" and {_gib(self.gpu_memory)} of its graphics card" if self.gpu_memory else ""
        each = f"each of {slots} processes" if slots > 1 else "the process"
        return (
            f"About {duration(self.seconds / slots)} ({slots} at a time, {self.shapes} shapes timed); "
            f"{each} takes about {_gib(self.memory)}{gpu}."
        )


def estimate(cells: Iterable[Cell]) -> Estimate:
    """Time one cell of each shape, for `PROBE` seconds of its search, and add up.

    A shape is all that decides the time of a cell; budgets, seeds and the like do not. A cell that cannot be
    run counts as taking no time. Nothing is compiled, so a sweep that will be takes less than this.

    Raises:
        InputError: for a cell that breaks.
    """
    counts, examples = Counter(map(_shape, cells := list(cells))), {}
    for cell in cells:
        examples.setdefault(_shape(cell), cell)
    if cells:
        _seconds(cells[0])  # loads what is loaded once
    seconds = sum(_seconds(cell) * counts[shape] for shape, cell in examples.items())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    gpu = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
    return Estimate(seconds, peak, gpu, len(examples))


class _EnoughError(Exception):
    """Ends a search that has been watched long enough; carries the seconds it would have taken."""


def _seconds(cell: Cell) -> float:
    begun, first = time.perf_counter(), None

    def watch(done: int, total: int, value: float) -> None:
        nonlocal first
        now = time.perf_counter()
        if first is None and done:
            first = (now, done)  # the first iteration warms up
        elif first is not None and now - first[0] > PROBE:
            rate = (now - first[0]) / (done - first[1])
            raise _EnoughError(now - begun + (total - done) * rate)

    try:
        measure(replace(cell, runtime=replace(cell.runtime, engine="eager")), prepare(cell.batch), watch)
    except _EnoughError as enough:
        return enough.args[0]
    except InputError:
        return 0.0
    except Exception as error:  # what a part of somebody's own got wrong
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(
            f"{describe(cell)} fails ({reason}): run it, and its log has the traceback."
        ) from error
    return time.perf_counter() - begun


def _shape(cell: Cell) -> Shape:
    batch, told, attack = cell.batch, cell.told, cell.attack
    images = batch.batch_size * batch.clients
    victim = (batch.model, batch.norm, batch.victim, batch.data, batch.image_size, images)
    evaluations = parts.attack_of(cell).evaluations() if attack else 0
    search = (attack and attack.name, evaluations, cell.floor, told.labels, told.bn_stats, cell.threat)
    return (*victim, *search, cell.defence.name, cell.runtime.engine, cell.runtime.device)


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"

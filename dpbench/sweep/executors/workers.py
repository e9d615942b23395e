"""Cells in processes of this machine: one or more per graphics card, one single-threaded per CPU core."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
import warnings
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import islice
from multiprocessing.connection import Connection, wait

import torch

from dpbench.cell.result import CellResult
from dpbench.cell.rows import without_result
from dpbench.cell.run import run_cell
from dpbench.cell.spec import Cell
from dpbench.sweep.executors.base import TRIES, CellProgress
from dpbench.system.output import Notice, notices_alone
from dpbench.system.process import configure, is_stopped, one_thread

SILENCE = 5.0
"""Seconds without a word from any worker after which those that are stopped are named."""


class Workers:
    """Each worker is given one cell at a time; one that is killed is replaced and its cell begun again.

    Where workers share a card and its memory runs out for one of them, that one leaves and its cell is begun
    again by those who stay, so that as many stay as fit. Only a cell that had a card to itself fails for it.

    Args:
        device: `cpu` or `cuda`; the k-th worker uses the k-th card, and so on in turns.
        count: workers; None is one per card or core.
    """

    def __init__(self, device: str, count: int | None = None) -> None:
        cards = torch.cuda.device_count() if device == "cuda" else 0
        self._cards = [place % cards if cards else None for place in range(count or cards or cores())]

    @property
    def slots(self) -> int:
        """Workers, less those that have left."""
        return len(self._cards)

    def __call__(self, cells: Iterable[Cell], progress: CellProgress) -> Iterator[tuple[Cell, CellResult]]:
        """See `dpbench.sweep.executors.base.Executor`."""
        cells, again, begun = iter(cells), deque(), Counter()
        team = []
        try:
            first = list(islice(cells, self.slots))
            for card, _ in zip(self._cards, first, strict=False):
                team.append(_Worker(card))
            for worker, cell in zip(team, first, strict=True):
                worker.assign(cell, team)
            while team:
                ready = wait(team, SILENCE)
                for worker in () if ready else team:
                    worker.say_if_stopped()
                for worker in ready:
                    said, cell = worker.receive(), worker.cell
                    if isinstance(said, tuple):
                        progress(cell, *said)
                        continue
                    if said is None:
                        team.remove(worker)
                        begun[cell] += 1
                        if begun[cell] < TRIES:
                            again.append(cell)
                        else:
                            said = without_result(cell, "failed", _killed(worker.stop()))
                        worker = _Worker(worker.card)
                        team.append(worker)
                    elif said.out_of_memory and worker.shared:
                        again.append(cell)
                        if worker.shares(team):
                            self._leave(worker, team)
                            continue
                        said = None  # the others have left meanwhile: it may fit now
                    upcoming = again.popleft() if again else next(cells, None)
                    if upcoming is None:
                        team.remove(worker)
                        worker.stop()
                    else:
                        worker.assign(upcoming, team)
                    if said is not None:
                        yield cell, said
        finally:
            for worker in team:
                worker.stop()

    def _leave(self, worker: _Worker, team: list[_Worker]) -> None:
        """Ends its process, which gives all of its memory back."""
        team.remove(worker)
        worker.stop()
        self._cards.remove(worker.card)
        stay = sum(other.card == worker.card for other in team)
        warnings.warn(
            f"Graphics card {worker.card} ran out of memory with {stay + 1} cells at a time; "
            f"{stay} continue, and the cell is started again.",
            Notice,
            stacklevel=3,
        )


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Worker:
    """One process and our end of the line to it."""

    def __init__(self, card: int | None) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["dpbench.cell.run"])  # seconds of imports, once for all
        self.card = card
        self._line, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, card), daemon=True)
        self._process.start()
        theirs.close()

    def fileno(self) -> int:
        """For `multiprocessing.connection.wait`."""
        return self._line.fileno()

    def assign(self, cell: Cell, team: list[_Worker]) -> None:
        """Have it run `cell`, one of `team`, which only becomes fewer until it is done."""
        self.cell, self.shared = cell, self.shares(team)
        with suppress(OSError):  # a dead one will be heard to be
            self._line.send_bytes(pickle.dumps(cell))

    def shares(self, team: list[_Worker]) -> bool:
        """Whether another one of `team` uses the same card."""
        return self.card is not None and any(o.card == self.card for o in team if o is not self)

    def say_if_stopped(self) -> None:
        """Warn of a process that will never answer by itself."""
        if is_stopped(number := self._process.pid):
            warnings.warn(
                f"Process {number} is stopped and has a cell in hand: let it go on with "
                f"kill -CONT {number}, or end it with kill -KILL {number}, and the cell is begun again.",
                Notice,
                stacklevel=3,
            )

    def receive(self) -> CellResult | tuple[int, int, float] | None:
        """A result, or progress within the cell; None where the worker has died."""
        try:
            return pickle.loads(self._line.recv_bytes())
        except (OSError, EOFError):
            return None

    def stop(self) -> int | None:
        """End it, whatever it is doing; its exit status, a signal's number negated."""
        self._line.close()
        if self._process.exitcode is None:
            self._process.join(0.1)  # a dead one's status may take a moment to arrive
        self._process.kill()
        self._process.join()
        return self._process.exitcode


def _serve(line: Connection, card: int | None) -> None:
    """What a worker does: cells in, progress and results out, until the line is closed.

    Results go as plain pickles: PyTorch would otherwise share their memory with a process that may be gone.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole terminal; the driver decides
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with_the_driver, daemon=True).start()
    configure()
    if card is None:
        one_thread()
    with notices_alone():
        while True:
            try:
                cell = pickle.loads(line.recv_bytes())
            except (OSError, EOFError):
                return
            result = run_cell(cell, lambda *said: line.send_bytes(pickle.dumps(said)), card)
            line.send_bytes(pickle.dumps(result))


def _end_with_the_driver() -> None:
    wait([multiprocessing.parent_process().sentinel])
    os._exit(1)


def _killed(status: int | None) -> str:
    cause = f"signal {-status}" if status and status < 0 else f"exit status {status}"
    return f"Its process ended {TRIES} times without a result ({cause}): perhaps there is too little memory."

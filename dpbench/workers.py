"""Cells in processes of this machine: one per graphics card, or one single-threaded per core on the CPU."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from multiprocessing.connection import Connection, wait

import torch

from dpbench.executor import TRIES, CellProgress
from dpbench.grid import Cell
from dpbench.process import one_thread, settle
from dpbench.trial import CellResult, run_cell, without_result


class Workers:
    """Each worker is given one cell at a time; one that is killed is replaced and its cell begun again.

    Args:
        device: `cpu` or `cuda`; the k-th worker uses the k-th card.
        count: workers; None is one per card or core.
    """

    def __init__(self, device: str, count: int | None = None) -> None:
        self._cards = torch.cuda.device_count() if device == "cuda" else 0
        self.slots = count or self._cards or cores()

    def __call__(self, cells: Iterable[Cell], progress: CellProgress) -> Iterator[tuple[Cell, CellResult]]:
        """See `dpbench.executor.Executor`."""
        cells, again, begun = iter(cells), deque(), Counter()
        crew = []
        try:
            for place in range(self.slots):
                if (cell := next(cells, None)) is not None:
                    crew.append(_Worker(self._card(place)))
                    crew[-1].give(cell)
            while crew:
                for worker in wait(crew):
                    said, cell = worker.heard(), worker.cell
                    if isinstance(said, tuple):
                        progress(cell, *said)
                        continue
                    if said is None:
                        crew.remove(worker)
                        begun[cell] += 1
                        if begun[cell] < TRIES:
                            again.append(cell)
                        else:
                            said = without_result(cell, "failed", _killed(worker.stop()))
                        worker = _Worker(worker.card)
                        crew.append(worker)
                    upcoming = again.popleft() if again else next(cells, None)
                    if upcoming is None:
                        crew.remove(worker)
                        worker.stop()
                    else:
                        worker.give(upcoming)
                    if said is not None:
                        yield cell, said
        finally:
            for worker in crew:
                worker.stop()

    def _card(self, place: int) -> int | None:
        return place % self._cards if self._cards else None


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Worker:
    """One process and our end of the line to it."""

    def __init__(self, card: int | None) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["dpbench.trial"])  # seconds of imports once, not for every worker
        self.card = card
        self._line, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, card), daemon=True)
        self._process.start()
        theirs.close()

    def fileno(self) -> int:
        """For `multiprocessing.connection.wait`."""
        return self._line.fileno()

    def give(self, cell: Cell) -> None:
        """Have it run `cell`."""
        self.cell = cell
        with suppress(OSError):  # a dead one will be heard to be
            self._line.send_bytes(pickle.dumps(cell))

    def heard(self) -> CellResult | tuple[int, int, float] | None:
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
    settle()
    if card is None:
        one_thread()
    else:
        torch.cuda.set_device(card)
    while True:
        try:
            cell = pickle.loads(line.recv_bytes())
        except (OSError, EOFError):
            return
        result = run_cell(cell, lambda *said: line.send_bytes(pickle.dumps(said)))
        line.send_bytes(pickle.dumps(result))


def _end_with_the_driver() -> None:
    wait([multiprocessing.parent_process().sentinel])
    os._exit(1)


def _killed(status: int | None) -> str:
    cause = f"signal {-status}" if status and status < 0 else f"exit status {status}"
    return f"Its process ended {TRIES} times without a result ({cause}); is there enough memory?"

"""Cells on a Ray cluster: Ray places them, and runs them again where a node or a process is lost."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterable, Iterator
from contextlib import suppress
from types import ModuleType

from dpbench import __version__
from dpbench.cell.result import CellResult
from dpbench.cell.rows import without_result
from dpbench.cell.run import run_cell
from dpbench.cell.spec import Cell
from dpbench.protocol import InputError
from dpbench.sweep.executors.base import TRIES, CellProgress
from dpbench.system.process import configure, one_thread


class Ray:
    """One core per cell on the CPU; a share of a graphics card, and one core, elsewhere.

    The nodes need the same version of dpbench, and data and weights under the same paths; the folder of
    results is this process's alone.

    Args:
        device: `cpu` or `cuda`.
        address: `auto` or HOST:PORT for a cluster that runs, `local` for one that ends with this process.
        gpus_per_cell: share of a card reserved for a cell.

    Raises:
        InputError: Ray is not installed, no cluster answers, or it has nothing to run a cell on.
    """

    def __init__(self, device: str, address: str = "auto", gpus_per_cell: float = 1.0) -> None:
        try:
            import ray
        except ImportError:
            raise InputError("--executor ray needs Ray: pip install 'dpbench[cluster]'.") from None
        self._ray, self._needs = ray, {"CPU": 1.0} | ({"GPU": gpus_per_cell} if device == "cuda" else {})
        if not ray.is_initialized():
            _join(ray, address)
        if not self.slots:
            raise InputError(f"The Ray cluster has no room for a cell, which needs {self._needs}.")
        self._task = ray.remote(
            num_cpus=1, num_gpus=self._needs.get("GPU", 0), max_retries=TRIES - 1, retry_exceptions=False
        )(_run)

    @property
    def slots(self) -> int:
        """Cells the cluster can run at a time, as it is now."""
        has = self._ray.cluster_resources()
        return int(min(has.get(name, 0) / needed for name, needed in self._needs.items()))

    def __call__(self, cells: Iterable[Cell], progress: CellProgress) -> Iterator[tuple[Cell, CellResult]]:
        """See `dpbench.sweep.executors.base.Executor`; progress within a cell stays on its node."""
        cells, out = iter(cells), {}
        try:
            while True:
                # one cell more than there is room for, so that no slot waits for us
                while len(out) <= self.slots and (cell := next(cells, None)) is not None:
                    out[self._task.remote(cell)] = cell
                if not out:
                    return
                for reference in self._ray.wait(list(out))[0]:
                    cell = out.pop(reference)
                    yield cell, self._result(cell, reference)
        finally:
            for reference in out:
                with suppress(self._ray.exceptions.RayError):  # the cluster may be gone
                    self._ray.cancel(reference, force=True)

    def _result(self, cell: Cell, reference: object) -> CellResult:
        try:
            return self._ray.get(reference)
        except self._ray.exceptions.LocalRayletDiedError:
            raise InputError(  # no cell's fault: none of those in hand counts as failed
                "Ray's own process on this machine (raylet) was killed; the cells that were done are kept: "
                "start Ray again and give the same command again to go on."
            ) from None
        except self._ray.exceptions.RayError as error:
            reason = f"Ray gave it up after {TRIES} tries: {_first_line(error)}"
            return without_result(cell, "failed", reason)


def _join(ray: ModuleType, address: str) -> None:
    ours = signal.getsignal(signal.SIGTERM)
    try:
        host, _, port = address.rpartition(":")
        if host and port.isdecimal():  # Ray itself would try for minutes
            socket.create_connection((host, int(port)), timeout=10).close()
        ray.init(address, log_to_driver=False, logging_level="ERROR")
    except (OSError, ValueError, OverflowError, RuntimeError) as error:
        raise InputError(
            f"No Ray cluster answers at {address!r} ({_first_line(error)}): start one with "
            "'ray start --head', name another with --ray-address, or use --executor workers."
        ) from None
    finally:
        signal.signal(signal.SIGTERM, ours)  # Ray's own handler would end the run without a word


def _run(cell: Cell) -> CellResult:
    if __version__ != cell.runtime.version:
        return without_result(
            cell,
            "failed",
            f"This node has dpbench {__version__}, not {cell.runtime.version}: install the same version.",
        )
    configure()
    if cell.runtime.device == "cpu":
        one_thread()
    return run_cell(cell)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]

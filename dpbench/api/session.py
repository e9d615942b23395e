"""What `benchmark` and `attack` do once it is settled what is attacked: plan, run, keep, return."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console

from dpbench import __version__, metrics, store
from dpbench.cell.spec import Cell, Runtime
from dpbench.protocol import InputError
from dpbench.report.export import export
from dpbench.sweep import engines, executors
from dpbench.sweep.own_inputs import OwnInputs
from dpbench.sweep.plan import plan
from dpbench.sweep.session import Session
from dpbench.system import devices, digest
from dpbench.system.paths import absolute

Progress = Callable[[Cell, int, int, float], None]
"""(cell, iterations done, iterations in all, objective value) -> None."""


def carry_out(
    inputs: OwnInputs,
    values: dict[str, tuple[Any, ...]],
    *,
    device: str | None,
    engine: str,
    out: str | Path | None,
    progress: bool | Progress,
) -> pd.DataFrame:
    """Every cell of `values`, run or read from `out`; arguments as those of `benchmark`.

    Args:
        inputs: model and batches.
        values: what varies; see `dpbench.sweep.plan.plan`.
        device: `cpu`, `cuda` or None.
        engine: what runs the iterations.
        out: folder to keep the run in, or None.
        progress: whether to show how far it is, or whom to tell.

    Returns:
        One row per image and cell, floors attached.

    Warns:
        RuntimeWarning: where `delta` is not below 1 / `train_size`, and for what else lies in `out`.

    Raises:
        InputError: where nothing at all could be run, and for a folder that cannot be used.
    """
    runtime = Runtime(
        device=devices.chosen(device),
        engine=engine,
        lpips_net=None if inputs.size is None or metrics.why_no_lpips(*inputs.size) else "alex",
        version=__version__,
    )
    planned = plan(values, inputs, runtime)
    for line in planned.cautions():
        warnings.warn(line, RuntimeWarning, stacklevel=3)
    cells = engines.choose(planned.cells)
    with _folder(out) as folder:
        configuration = {name: str(value) for name, value in sorted(values.items()) if value} | {
            "device": runtime.device,
            "version": runtime.version,
            "inputs": digest.described(
                {cell.batch.images_digest + cell.batch.weights_digest: "" for cell in cells}
            ),
        }
        results = store.open_run(folder, configuration)
        session = Session.begin(results, cells)
        for line in session.sort_out():
            warnings.warn(line, RuntimeWarning, stacklevel=3)
        executor = executors.Local(inputs.scene)
        if callable(progress):
            executor = _Told(executor, progress)
        console = Console(stderr=True, emoji=False)
        # without a terminal a notebook's cell or a log would fill with lines that nobody asked for
        quiet = progress is not True or not (console.is_terminal or console.is_jupyter)
        session.run(session.missing(), executor, console, quiet)
        table = store.attach_floors(results.frame(session.cells))
        if out is not None:
            export(results, table)
    attacked = table[table["floor"].isna()]
    if not (attacked["status"] == "ok").any():
        raise InputError(f"Nothing that was asked for could be run. {attacked['error'].iloc[0]}")
    return table


class _Told:
    """An executor whose progress goes to the caller's function."""

    def __init__(self, inner: executors.Local, tell: Progress) -> None:
        self.slots, self._inner, self._tell = inner.slots, inner, tell

    def __call__(self, cells: Any, progress: Any) -> Iterator[Any]:
        return self._inner(cells, self._tell)


@contextmanager
def _folder(out: str | Path | None) -> Iterator[Path]:
    if out is not None:
        yield absolute(out)
        return
    with tempfile.TemporaryDirectory(prefix="dpbench-") as folder:
        yield Path(folder) / "run"

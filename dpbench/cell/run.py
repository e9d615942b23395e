"""Runs one cell; nothing here depends on what ran before."""

from __future__ import annotations

import gc
import os
import platform
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import torch

from attacks import engine
from dpbench.cell import parts, registered
from dpbench.cell.changed import prepared
from dpbench.cell.result import CellResult
from dpbench.cell.rows import describe, of_victim, without_result
from dpbench.cell.scene import Scene, moved, prepare
from dpbench.cell.spec import BatchSpec, Cell
from dpbench.cell.threat_model import Progress
from dpbench.protocol import InputError
from dpbench.store.schema import checked
from dpbench.system import process

Scenes = Callable[[BatchSpec], Scene]
"""What a cell's batch stands for."""


def run_cell(
    cell: Cell, progress: Progress | None = None, card: int | None = None, scenes: Scenes = prepare
) -> CellResult:
    """The result of `cell`, the same wherever and whenever it runs on the same kind of device.

    A cell whose attack or defence does not suit the model or the batch (InputError) has status `skipped`. One
    that broke, or whose batch or victim there is not, has `failed`, and is run again when the run goes on.
    `error` says why.

    Args:
        cell: what to run.
        progress: told how far it is.
        card: number of the graphics card that this process is to use from now on; None leaves it as it is.
        scenes: where the batch and the victim are from.
    """
    attacked: list[Scene] = []

    def work() -> CellResult:
        if card is not None:
            torch.cuda.set_device(card)  # here, as there may be no memory left even for that
        try:
            registered.load(cell.runtime.plugins)
            attacked.append(scene := scenes(cell.batch))
        except InputError as error:  # the plan had them, so something has changed since
            return without_result(cell, "failed", str(error))
        return measure(cell, scene, progress)

    with process.clean_state():
        kept = engine.kept()
        result = guarded(cell, work)
        if result.out_of_memory and kept:  # the programs of earlier cells, dropped by now, took some of it
            result = guarded(cell, work)
    if result.status != "ok" and attacked:
        mode = of_victim(attacked[-1])["mode"]
        result = replace(result, rows=[row | {"mode": mode} for row in result.rows])
    return result


def measure(cell: Cell, scene: Scene, progress: Progress | None = None) -> CellResult:
    """Defends, attacks and scores, as the cell's threat model has it.

    Raises:
        InputError: for a defence or an attack that cannot work on this model or batch.
        ValueError: for a value that is not of its column's type.
    """
    ready = moved(prepared(cell, scene, progress), torch.device(cell.runtime.device))
    result = parts.threat_of(cell).run(cell, ready, progress)
    for row in result.rows:  # what an attack reports of itself may be anything, and would end the run later
        checked(row)
    return result


def guarded(cell: Cell, work: Callable[[], CellResult]) -> CellResult:
    """`work()`, or rows that say why there is no result; either with its log."""
    began, clock, trace, spoilt = datetime.now(UTC), time.perf_counter(), "", False
    try:
        result = work()
    except InputError as error:
        result = without_result(cell, "skipped", str(error))
    except (Exception, SystemExit) as error:  # whatever a third-party attack raises, the other cells go on
        place = traceback.extract_tb(error.__traceback__)[-1]
        reason = f"{type(error).__name__}: {error} ({Path(place.filename).name}:{place.lineno})"
        starved = engine.out_of_memory(error)
        spoilt = starved or engine.of_the_card(error)
        if starved:
            reason = f"Out of memory: use a smaller `batch_size` or fewer `restarts`. {reason}"
        result = replace(without_result(cell, "failed", reason), out_of_memory=starved)
        trace = traceback.format_exc()
    if result.status == "failed":  # only now that the traceback no longer holds the search's tensors
        gc.collect()
    if spoilt:  # whatever else breaks leaves compiled programs as they are, for the next cell
        engine.forget()
    seconds = time.perf_counter() - clock
    where = f"{began:%Y-%m-%d %H:%M:%S} UTC, {platform.node()}, process {os.getpid()}"
    return replace(result, log=f"{where}: {describe(cell)}\n{trace}{result.status} after {seconds:.1f} s\n")

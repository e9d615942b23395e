"""Clocks, memory, counters of operations, and tables."""

from __future__ import annotations

import csv
import ctypes
import gc
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch.utils._python_dispatch import TorchDispatchMode

_CLEAR, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")
Row = Mapping[str, Any]


def wait(device: str) -> None:
    """Until the device is done."""
    if device == "cuda":
        torch.cuda.synchronize()


def seconds(work: Callable[[], Any], device: str) -> float:
    """The time of one call, its work on the device included."""
    wait(device)
    begun = time.perf_counter()
    work()
    wait(device)
    return time.perf_counter() - begun


@contextmanager
def peak(device: str) -> Iterator[Callable[[], float]]:
    """A function that gives, after the block, the MiB taken in it at most beyond what was taken before.

    On a graphics card what PyTorch allocated; on the CPU the process' resident memory (Linux; else NaN).
    """
    gc.collect()
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    elif _CLEAR.exists():
        with suppress(AttributeError):  # where there is no glibc
            ctypes.CDLL(None).malloc_trim(0)
        _CLEAR.write_text("5")  # the high-water mark starts anew
        before = _resident("VmRSS")
    found = float("nan")
    yield lambda: found
    if device == "cuda":
        found = (torch.cuda.max_memory_allocated() - before) / 2**20
    elif _CLEAR.exists():
        found = (_resident("VmHWM") - before) / 2**20


def _resident(name: str) -> int:
    return 1024 * int(re.search(rf"{name}:\s+(\d+)", _STATUS.read_text()).group(1))


class Operations(TorchDispatchMode):
    """Counts the ATen operations below autograd that compute or copy: no views, no allocations.

    Attributes:
        count: operations so far.
    """

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        """Count one."""
        self.count += computes(func)
        return func(*args, **(kwargs or {}))


def computes(func: Any) -> bool:
    """Whether an ATen operation computes or copies."""
    name = func._schema.name.split("::")[1]
    return not func.is_view and not name.startswith(("empty", "new_empty", "detach", "_unsafe_view"))


def kept(rows: Iterator[Row], columns: Sequence[str], file: Path) -> list[Row]:
    """All of `rows`; each is in `file`, as CSV, as soon as it is measured."""
    found = []
    with file.open("w", newline="") as handle:
        writer = csv.DictWriter(handle, columns)
        writer.writeheader()
        for row in rows:
            found.append(row)
            writer.writerow(row)
            handle.flush()
    return found


def show(title: str, rows: Sequence[Row], file: Path) -> None:
    """Prints `rows` and writes them to `file` as CSV."""
    table = Table(title=title)
    for name in rows[0]:
        table.add_column(name, justify="left" if isinstance(rows[0][name], str) else "right")
    for row in rows:
        table.add_row(*map(_cell, row.values()))
    Console(width=160).print(table)
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="") as handle:
        writer = csv.DictWriter(handle, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)

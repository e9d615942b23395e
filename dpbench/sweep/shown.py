"""How far something is: a bar on a terminal, plain lines elsewhere, nothing where it is to be quiet."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn

from dpbench.cell.rows import describe
from dpbench.cell.spec import Cell
from dpbench.sweep.progress import SILENCE
from dpbench.system.output import plain


class Shown:
    """A context manager around what takes long; what shows its steps is built on it.

    Args:
        console: where to show it.
        quiet: show nothing.
        columns: of the bar, behind its description and its `state`.
        options: others of `rich.progress.Progress`.
    """

    def __init__(self, console: Console, quiet: bool, *columns: ProgressColumn, **options: Any) -> None:
        self._console, self._quiet = console, quiet
        self._said = time.monotonic()
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=12),
            TextColumn("{task.fields[state]}"),
            *columns,
            console=console,
            transient=True,
            disable=quiet or not console.is_terminal,
            **options,
        )

    def __enter__(self) -> Self:
        if not self._bar.disable:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._bar.disable:  # rich ends with an empty line even then
            self._bar.stop()

    def waiting(self, held: Mapping[Cell, str]) -> None:
        """Another process on this folder has in hand what is needed next."""
        if held and self._silent:
            named = ", ".join(f"{describe(cell)} ({who})" for cell, who in held.items())
            self._say(f"Waiting for cells that other processes run: {named}.")

    @property
    def _silent(self) -> bool:
        """Whether nothing was said for a while."""
        return time.monotonic() - self._said > SILENCE

    def _now_and_then(self, line: str) -> None:
        """Say it where there is no bar, if nothing was said for a while."""
        if self._silent and not self._console.is_terminal:
            self._say(line)

    def _say(self, line: str) -> None:
        self._said = time.monotonic()
        if not self._quiet:
            self._console.print(plain(line), markup=False, highlight=False, soft_wrap=True)

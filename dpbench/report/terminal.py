"""What a run says at its end: the table, what it means, and where the files are."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from rich.console import Console

from dpbench.report import escape, fields, sentence, tables
from dpbench.report.flags import flags
from dpbench.report.published import published
from dpbench.store import Store
from dpbench.system.words import counted

WIDTH = 120
"""Columns of the table where it goes to a file or a pipe."""


def show(
    table: pd.DataFrame, folder: Path, files: Sequence[Path], columns: str | Sequence[str] = fields.SHORT
) -> None:
    """Print the results of a run.

    Args:
        table: per-image results, floors attached, columns of `dpbench.store.columns`.
        folder: where they are, as the user named it.
        files: what was written there.
        columns: what the table shows, as of `dpbench.report.fields.fields`.
    """
    console = Console(emoji=False)  # a folder may be called run:x:1
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console = Console(width=WIDTH, emoji=False)
    console.print(tables.rich_table(table, columns))
    doubts = [f"Flag, {flag.kind}: {flag.text}" for flag in flags(table, Store(folder))]
    for line in (sentence.sentence(table), *doubts, *(f"{line}." for line in published(table))):
        # the sentence has several lines of its own
        text = "\n".join(map(escape.plain, line.split("\n")))
        console.print(text, markup=False, highlight=False)
    console.print(f"\n{escape.plain(str(folder))}/", markup=False, highlight=False)
    console.print("  " + "  ".join(_names(files)), markup=False, highlight=False)
    if columns == fields.SHORT:
        console.print("Other columns of summary.csv are shown by --columns NAME,NAME or --columns all.")


def _names(files: Sequence[Path]) -> list[str]:
    """The files in the run's folder, and how many are in each folder below it."""
    counts = Counter(file.parent for file in files)
    top = min(counts, key=lambda folder: len(folder.parts), default=None)
    own = [file.name for file in files if file.parent == top]
    below = [f"{each.name}/ ({counted(count, 'file')})" for each, count in counts.items() if each != top]
    return [*dict.fromkeys(own), *below]

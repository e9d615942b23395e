"""Sixty cells of an attack that does nothing, and what a whole run of them looks like."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

import dpbench
from dpbench.store import Store

SIXTY = ["--attack", "instant", "--defense", "none", "clip", "prune", "--batch-size", "1"]
SIXTY += ["--batch-seed", *map(str, range(10)), "--iterations", "20", "--device", "cpu"]
TIMES = ["seconds", "compile_seconds"]


def table_of(folder: Path) -> pd.DataFrame:
    """The results without what no two runs have in common."""
    return dpbench.load(folder).drop(columns=TIMES)


def check(folder: Path, undisturbed: Path) -> None:
    """Every cell is there once and whole, nothing else is, and the table is that of an undisturbed run."""
    store = Store(folder)
    assert store.done() == set(store.expected()) == set(store.keys())
    assert len(store.keys()) == 60
    assert not (folder / "running").exists()
    assert not list(folder.rglob(".writing-*"))
    pd.testing.assert_frame_equal(table_of(folder), table_of(undisturbed))

"""Results of any folder: of a run that ended or not, or of tables that were kept without cells."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from dpbench.protocol import InputError
from dpbench.report.rows import ended_well
from dpbench.store import TABLES, Store, attach_floors, load, schema
from dpbench.system.paths import expanded, kind_of

_OTHERS = ("config.toml", "decide.json", "frontier.json", "utility.csv", "cells")


def read(path: str | Path) -> tuple[Store, pd.DataFrame]:
    """The folder's store, and its per-image results with all columns; no row where nothing was attacked.

    Cells are read where the exported table lacks some of them: the run was taken up again since.

    Raises:
        InputError: that is no folder, nothing in it is of dpbench, a table of it cannot be read, or its
            plug-in is not loaded.
    """
    folder = expanded(path)
    if kind_of(folder) != "folder":
        raise InputError(f"{folder} is no folder: name that of a run.")
    if not any(kind_of(folder / name) for name in (*TABLES, *_OTHERS)):
        raise InputError(f"{folder} holds nothing that dpbench wrote: name the folder of a run.")
    store = Store(folder)
    tables = [folder / name for name in TABLES if kind_of(folder / name) == "file"]
    exported = load(tables[0]) if tables else schema.frame([])
    finished, failed = store.counts()
    told, well = set(exported["key"].dropna()), set(exported.loc[ended_well(exported), "key"].dropna())
    table = exported if finished <= well and failed <= told else store.frame()
    schema.check_declared(table, folder)
    return store, table if table is exported else attach_floors(table)

"""An entry made from a run and written beside its tables."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from dpbench.report.entries.provenance import provenance, suite, utility
from dpbench.report.entries.results import Setting, result, settings
from dpbench.report.entries.schema import SCHEMA_VERSION, submission_of
from dpbench.report.flags import flags
from dpbench.report.rows import ended_well
from dpbench.report.units import units
from dpbench.store import Store, schema
from dpbench.system.atomic import written

FILE = "dpbench-entry.json"

_UNITS = {"record": "image", "user": "client"}


def write(store: Store, table: pd.DataFrame) -> Path:
    """Write `dpbench-entry.json` into a run's folder; what its submitter wrote into an older one stays.

    Args:
        store: the run, its `results.csv`, `config.toml` and `environment.json` written.
        table: per-image results, floors attached, columns of `dpbench.store.columns`.

    Raises:
        InputError: the disk is full or the folder cannot be written.
    """
    path = store.path / FILE
    text = json.dumps(entry(store.path, table), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    return written(path, lambda file: file.write_text(text, encoding="utf-8"))


def entry(folder: Path, table: pd.DataFrame) -> dict[str, Any]:
    """The entry of a run, as `entry.schema.json` describes it.

    Args:
        folder: the run's.
        table: as `write`.
    """
    table = schema.numbered(table)
    found, trained = settings(table), utility(folder)
    today = datetime.now(UTC).date().isoformat()
    submission = {"name": _text(folder.absolute().name) or "run", "authors": [], "date": today}
    return {
        "schema": "dpbench-entry",
        "schema_version": SCHEMA_VERSION,
        "submission": submission_of(folder / FILE) or submission,
        "suite": suite(folder),
        "unit": " and ".join(_UNITS[unit] for unit in units(table)) or "image",
        "results": [result(setting, trained) for setting in found],
        "cells_without_result": int(table.loc[~ended_well(table), "key"].nunique()),
        "flags": _flags(folder, table, found),
        "provenance": provenance(folder, table),
    }


def _text(name: str) -> str:
    """A folder's name with question marks for what is not UTF-8, which JSON cannot hold."""
    return name.encode("utf-8", errors="replace").decode()


def _flags(folder: Path, table: pd.DataFrame, found: list[Setting]) -> list[dict[str, Any]]:
    """The flags on a run, each with the results that hold its cells."""
    keys = {setting.id: set(setting.rows["key"]) for setting in found}
    return [
        {
            "kind": flag.kind,
            "text": flag.text,
            "results": [name for name, cells in keys.items() if not cells.isdisjoint(flag.keys)],
        }
        for flag in flags(table, Store(folder))
    ]

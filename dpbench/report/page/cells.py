"""Each cell of a run: what it was asked for, how it ended, and its log."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
from markupsafe import Markup

from dpbench.privacy.rounding import up
from dpbench.report.naming import ROUNDED_UP, number
from dpbench.report.page import beside
from dpbench.report.page.templating import render
from dpbench.report.rows import ended_well
from dpbench.store import Store
from dpbench.store.columns import conditions

LONGEST_LOG = 8_000
"""Characters of a log that are shown: its end, where it says what happened."""
ALL_LOGS = 2_000_000
"""Characters of all logs of a page."""
_READ = 1_000_000


@dataclass(frozen=True)
class _Cell:
    """One cell.

    Attributes:
        key: name of its file.
        title: what it is, in a line.
        state: `ok`, `failed`, `skipped` or `missing`.
        error: why it failed.
        settings: name and value of what cells differ in, a line each.
        log: its log, or the end of it.
    """

    key: str
    title: str
    state: str
    error: str
    settings: str
    log: str


def cells(table: pd.DataFrame, store: Store) -> Markup | None:
    """The failed and missing ones first, then all others; None where nothing is known of any."""
    expected = store.expected()
    found = list(_found(table, expected))
    there = {cell.key for cell in found}
    missing = [_Cell(k, title, "missing", "", "", "") for k, title in expected.items() if k not in there]
    if not found and not missing:
        return None
    logged, left = [], ALL_LOGS
    for cell in (*found, *missing):
        log = _log(store, cell.key) if left > 0 else ""
        left -= len(log)
        logged.append(_Cell(cell.key, cell.title, cell.state, cell.error, cell.settings, log))
    return render(
        "cells",
        broken=[cell for cell in logged if cell.state != "ok"],
        well=[cell for cell in logged if cell.state == "ok"],
        cut=left <= 0,
    )


def _found(table: pd.DataFrame, expected: Mapping[str, str]) -> list[_Cell]:
    """One for each key of the table, failed ones first."""
    table = table[table["key"].notna()]
    firsts = table.drop_duplicates("key")
    varying = [name for name in (*conditions(), "batch_seed", "attack_seed") if table[name].nunique() > 1]
    varying = list(dict.fromkeys(varying))
    well = ended_well(firsts)
    found = []
    for ok, row in sorted(zip(well, firsts.to_dict("records"), strict=True), key=lambda each: each[0]):
        settings = {name: row[name] for name in varying if not pd.isna(row[name])}
        title = expected.get(row["key"]) or _title(row)
        found.append(
            _Cell(
                key=row["key"],
                title=title,
                state="ok" if ok else str(row["status"]),
                error="" if pd.isna(row["error"]) else row["error"],
                settings="\n".join(f"{name}: {_text(name, value)}" for name, value in settings.items()),
                log="",
            )
        )
    return found


def _title(row: Mapping[str, Any]) -> str:
    """As `cells.csv` would have it, which older folders and exported tables lack."""
    words = [f"{row['model']} B={row['batch_size']} (batch {row['batch_seed']}): {row['attack']}"]
    if not pd.isna(row["defense"]):
        words.append(f"on {row['defense']}")
    if not pd.isna(row["eps"]):
        words.append(f"ε={up(row['eps'], 6)}")
    return " ".join(words)


def _text(name: str, value: Any) -> str:
    if isinstance(value, str):
        return value
    return up(value, 6) if name in ROUNDED_UP else number(value, "g")


def _log(store: Store, key: str) -> str:
    found = beside.text(store.log_file(key), _READ)
    if found is None or len(found) <= LONGEST_LOG:
        return found or ""
    return f"... (the last {LONGEST_LOG:,} characters)\n{found[-LONGEST_LOG:]}"

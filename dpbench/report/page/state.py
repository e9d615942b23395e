"""What a folder holds and what is missing: of runs that were interrupted, that failed, or that are empty."""

from __future__ import annotations

import pandas as pd
from markupsafe import Markup

from dpbench.report.page import beside
from dpbench.report.page.templating import render
from dpbench.report.rows import ended_well, is_floor
from dpbench.store import Store

_FILES = {
    "config.toml": "what was asked for",
    "environment.json": "versions and machine",
    "decide.json": "what follows from each epsilon: dpbench decide --out",
    "frontier.json": "up to which noise attacks succeed: dpbench frontier",
    "utility.csv": "accuracy under each defence",
}

_SUMS = ("summary.csv", "table.md")
"""What says something of results even where these were not kept."""


def state(table: pd.DataFrame, store: Store) -> Markup:
    """How many cells there are of how many, why some failed, and which files the page was made from."""
    expected = store.expected()
    well = set(table.loc[ended_well(table), "key"].dropna())
    failed = table[~ended_well(table)]
    broken = set(failed["key"].dropna()) - well
    keys = set(expected) or well | broken
    attacked = table[~is_floor(table) & ended_well(table)]
    return render(
        "state",
        rows=len(table),
        attacked=len(attacked),
        cells=len(keys),
        well=len(well & keys),
        failed=len(broken & keys),
        missing=len(keys - well - broken),
        noted=bool(expected),
        pictures=any(store.counts()[0]),
        reasons=failed["error"].dropna().drop_duplicates().head(3).tolist(),
        others=any(beside.content(store.path / name) is not None for name in list(_FILES)[2:]),
        summed=[name for name in _SUMS if beside.content(store.path / name) is not None],
        absent=[(n, what) for n, what in _FILES.items() if beside.content(store.path / n) is None],
    )

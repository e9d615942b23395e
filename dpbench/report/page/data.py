"""A table as data for the page's own script: compact, and every number whole."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
from markupsafe import Markup

from dpbench.report.naming import ROUNDED_UP
from dpbench.report.page.templating import render
from dpbench.store.columns import Column, columns

MOST = 20_000
"""Rows of a table on a page, at most."""


@dataclass(frozen=True)
class _Same:
    """A column with one value in all rows."""

    name: str
    meaning: str
    value: str


def data_table(
    name: str,
    caption: str,
    table: pd.DataFrame,
    shown: Collection[str],
    links: Mapping[str, str] | None = None,
    mark: str = "",
    file: str = "",
) -> Markup:
    """A table that can be sorted, filtered and downloaded.

    Columns without any value are left out. Columns with one value in all rows stand above the table.

    Args:
        name: of the table, for its place in the page and its download.
        caption: what it holds.
        table: its rows; of more than `MOST`, the first ones.
        shown: columns that are shown at first, if the rows differ in them, in that order; the others are a
            click away.
        links: column to what goes before its values to make an anchor of this page.
        mark: column whose values mark their rows.
        file: the CSV file beside the page that has all rows.
    """
    rows = table.head(MOST)
    filled = [c for c in dict.fromkeys((*shown, *rows)) if c in rows and rows[c].notna().any()]
    several = len(rows) > 1
    same = [c for c in filled if several and c != mark and _is_constant(rows[c])]
    varying = [column for column in filled if column not in same]
    data = {
        "name": name,
        "mark": varying.index(mark) if mark in varying else None,
        "file": file,
        "columns": [
            {
                "name": column,
                "title": column.replace("_", " "),
                "meaning": _meaning(column),
                "shown": column in shown,
                "link": (links or {}).get(column),
                "up": column in ROUNDED_UP,
                "data": _values(rows[column]),
            }
            for column in varying
        ],
    }
    return render(
        "data",
        name=name,
        file=file,
        caption=caption,
        data=data,
        same=[_Same(column, _meaning(column), _text(rows[column].iloc[0])) for column in same],
        rows=len(rows),
        all=len(table),
        columns=len(varying),
    )


def _is_constant(column: pd.Series) -> bool:
    return bool(column.notna().all()) and column.nunique() == 1


def _known(name: str) -> Column | None:
    """The column itself, or that of which the summary has a mean, say."""
    found = columns()
    return found.get(name) or found.get(name.rpartition("_")[0])


def _meaning(name: str) -> str:
    known = _known(name)
    if known is None:
        return ""
    statistic = "" if known.name == name else f"{name.rpartition('_')[2]} of "
    return f"{statistic}{known.meaning}" + (f" [{known.unit}]" if known.unit else "")


def _values(column: pd.Series) -> dict[str, Any]:
    """Words as numbers of a list, where they repeat; else the values themselves."""
    values = [_plain(value) for value in column]
    if pd.api.types.is_string_dtype(column.dtype):
        words = list(dict.fromkeys(values))
        if 2 * len(words) < len(values):
            place = {word: i for i, word in enumerate(words)}
            return {"words": words, "places": [place[value] for value in values]}
    return {"values": values}


def _plain(value: Any) -> Any:
    """JSON knows neither NaN nor infinity: the former is null, the latter a word."""
    value = value.item() if hasattr(value, "item") else value
    if value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, float) and math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return value


def _text(value: Any) -> str:
    value = _plain(value)
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)

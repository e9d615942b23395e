"""Where a run departs from what was stored of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from dpbench.report.check import figures
from dpbench.report.check.findings import Departure, Findings, Matched, column, place
from dpbench.report.check.pairs import pair, settings_of, text
from dpbench.report.check.stored import Stored
from dpbench.report.rows import ended_well
from dpbench.store.columns import columns

_SAME_IMAGE = ("original_index", "label")
_EQUAL = ("iterations", "decoys_known")
"""Columns of provenance in which a rerun is the same; times, machines and notes differ."""


def compare(there: Stored, here: Stored) -> Findings:
    """Compare a run with what was stored of it, row by row.

    Args:
        there: what was stored.
        here: the run.
    """
    found = Findings()
    a, b = (each.table.reset_index(drop=True) for each in (there, here))
    pairs = pair(a, b, there.asked)
    _single(a.loc[pairs.only_there], there.asked, here.asked, "stored and not in this run", found)
    _single(b.loc[pairs.only_here], here.asked, there.asked, "in this run and not stored", found)
    both_wrote = there.both_wrote(here)
    _single_columns(a, b, both_wrote, found)
    a, b = a.loc[pairs.there].reset_index(drop=True), b.loc[pairs.here].reset_index(drop=True)
    exact = pd.Series(False, index=a.index)
    if there.same_machine(here):
        exact = (column(a, "key") == column(b, "key")).fillna(False).astype(bool)
    for kind, by in pairs.by.items():
        rows = (a["attack"] == kind[0]) & (a["defense"] == kind[1])
        if rows.any():
            _kind(Matched(kind, a[rows], b[rows], exact[rows], both_wrote), by, found)
    return found


def _single(
    rows: pd.DataFrame, ours: Mapping[str, Any], theirs: Mapping[str, Any], where: str, found: Findings
) -> None:
    """Rows without a counterpart: a departure, unless the other run was not asked for them."""
    unasked = _unasked(rows, ours, theirs)
    for names, count in unasked[unasked != ""].value_counts().items():
        found.left_out.append(f"rows {where}: {count}, as the two were asked for different {names}")
    for kind, lost in rows[unasked == ""].groupby(["attack", "defense"]):
        found.departures.append(Departure(kind, "row", len(lost), f"{where}; {place(lost.iloc[0])}"))


def _unasked(rows: pd.DataFrame, ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> pd.Series:
    """For each row the options whose value in it the other run was not asked for; empty if there are none."""
    named = pd.Series("", index=rows.index, dtype=object)
    for name, values in theirs.items():
        if not isinstance(values, list) or not values or not ours.get(name) or values == ours[name]:
            continue
        held = column(rows, name)
        if name == "eps":  # the budget of a release alone has a column of its own
            held = held.fillna(column(rows, "eps_release"))
        other = held.notna() & ~_member(held, values)
        named[other] = named[other].map(lambda said, name=name: f"{said} and {name}" if said else name)
    return named


def _member(held: pd.Series, values: Iterable[Any]) -> pd.Series:
    if pd.api.types.is_float_dtype(held):
        near = np.isclose(held.to_numpy(float)[:, None], np.array(list(values), float), rtol=1e-6).any(1)
        return pd.Series(near, index=held.index)
    return held.isin(list(values))


def _single_columns(a: pd.DataFrame, b: pd.DataFrame, both_wrote: frozenset[str], found: Findings) -> None:
    known = {name for name, each in columns().items() if each.role != "provenance"} - both_wrote
    for names, where in (
        ([name for name in a if name in known and name not in b], "are empty in this run"),
        ([name for name in b if name in known and name not in a], "are empty in what was stored"),
        ([name for name in a if name not in columns()], "are none of this version"),
    ):
        if names:
            found.left_out.append(f"columns that {where}: {', '.join(names)}")


def _kind(pairs: Matched, by: list[str], found: Findings) -> None:
    other = pd.Series(False, index=pairs.there.index)
    for name in _SAME_IMAGE:
        other |= (pairs.column(name)[0] != pairs.column(name)[1]).fillna(False).astype(bool)
    if other.any():
        said = "another photograph, so its figures are not compared"
        found.departures.append(pairs.departure("original_index", other, said))
        pairs = pairs[~other]
    settings = {*settings_of(pairs.there, {}), *settings_of(pairs.here, {}), *_EQUAL} - {*by}
    for name in sorted(settings):
        held = pairs.column(name)
        if held[0].equals(held[1]):  # as nearly all are, and words for each row take long
            continue
        x, y = (text(values.to_frame(name), [name])[name] for values in held)
        differ = (x != y) & ((name in pairs.both_wrote) | ((x != "") & (y != "")))
        for (one, two), rows in pd.DataFrame({"x": x, "y": y})[differ].groupby(["x", "y"]):
            said = f"{one or 'empty'} there, {two or 'empty'} here"
            found.departures.append(Departure(pairs.kind, name, len(rows), said))
    well = [ended_well(rows) for rows in (pairs.there, pairs.here)]
    if (ended := well[0] != well[1]).any():
        found.departures.append(pairs.departure("status", ended))
    pairs = pairs[well[0] & well[1]]
    found.compared += len(pairs.there)
    found.exact += int(pairs.exact.sum())
    figures.compare(pairs, by, found)

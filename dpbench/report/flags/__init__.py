"""Doubts about results, one sentence each, to be read beside the numbers (docs/flags.md)."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from dpbench.report.flags.adaptive import adaptive
from dpbench.report.flags.claims import audited, exceeded, tuned, unchecked
from dpbench.report.flags.flag import Flag, Raise, Results
from dpbench.report.flags.floors import beaten, fails
from dpbench.report.flags.releases import too_long, unrepeatable, zero
from dpbench.store import Store, schema
from dpbench.system.once import once

__all__ = ["RAISED", "Flag", "flags"]

RAISED: list[Raise] = [
    exceeded,
    audited,
    unchecked,
    too_long,
    unrepeatable,
    fails,
    adaptive,
    beaten,
    zero,
    tuned,
]
"""One function for each kind, errors before weak attacks."""


def flags(table: pd.DataFrame, store: Store | None = None) -> list[Flag]:
    """Raise every flag that a run's results call for.

    A flag is no verdict: it names a reason to read some rows with care. That there are none proves nothing.

    Args:
        table: per-image results, floors attached, columns of `dpbench.store.columns`.
        store: the run's folder, in which audits are looked for; None leaves them out.

    Returns:
        Errors first, then attacks that are too weak, then the images.
    """
    return list(_raised(schema.numbered(table), None if store is None else store.path.absolute()))


@once
def _raised(table: pd.DataFrame, folder: Path | None) -> tuple[Flag, ...]:
    results = Results(table, None if folder is None else Store(folder))
    return tuple(flag for raised in RAISED for flag in raised(results))

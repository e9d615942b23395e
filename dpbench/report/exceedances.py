"""Measurements above what differential privacy allows, corrected for how many were made."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd

from dpbench.privacy.intervals import clopper_pearson
from dpbench.privacy.rounding import up_percent
from dpbench.report.naming import Naming
from dpbench.report.rows import is_floor
from dpbench.report.summary import grouped
from dpbench.store import schema
from dpbench.system.words import per_cent

LEVEL = 0.05
"""Chance of a false alarm, over all intervals of a table."""


@dataclass(frozen=True)
class Compared:
    """One interval with its bound.

    Attributes:
        line: its row of the summary.
        what: `picked` (the true candidate) or `membership`.
        right: right answers.
        asked: answers in all.
        bound: the most that is allowed, as a share.
    """

    line: pd.Series
    what: str
    right: int
    asked: int
    bound: float


def compared(lines: pd.DataFrame) -> list[Compared]:
    """Every interval of a summary that has a bound."""
    return [each for _, line in lines.iterrows() for each in _of(line)]


def _of(line: pd.Series) -> Iterator[Compared]:
    # membership is asked twice in each trial: with the sample, and without
    for what, column, repeats in (("picked", "success", 1), ("membership", "membership", 2)):
        if not pd.isna(line[column]) and not pd.isna(line[f"{column}_bound"]):
            asked = repeats * int(line["trials"])
            right = round(float(line[column]) * asked)
            yield Compared(line, what, right, asked, float(line[f"{column}_bound"]))


def exceedances(table: pd.DataFrame) -> list[str]:
    """Name what lies above its bound.

    The intervals are exact and corrected for their number (Bonferroni): if no defence is broken, the chance
    that any of them lies above its bound is at most 5 %. Whatever is named here is an error in a defence, in
    its accounting or in the bound.

    Args:
        table: per-image results, columns of `dpbench.store.columns`.

    Returns:
        One line per exceedance; nothing where all is as it should be.
    """
    return [text for _, text in exceeding(schema.numbered(table))]


def exceeding(table: pd.DataFrame) -> list[tuple[Compared, str]]:
    """What lies above its bound, each with the line of `exceedances`.

    Args:
        table: as of `exceedances`, no two rows with the same index; the name of a `Compared.line` is the
            index of `dpbench.report.summary.grouped`.
    """
    table = schema.conform(table)
    lines, _ = grouped(table)
    naming = Naming(table)
    found = compared(lines[~is_floor(lines)])
    said = []
    for each in found:
        low, high = clopper_pearson(each.right, each.asked, 1 - LEVEL / len(found))
        if low > each.bound:
            share = each.right / each.asked
            where = ", ".join([f"batch of {each.line['batch_size']}", *naming.heading(each.line)])
            text = (
                f"{naming.attack(each.line)} under {naming.defence(each.line)}, {where}: "
                f"{each.what} {per_cent(share)} % of {each.asked} "
                f"(corrected interval {per_cent(low, 1)} to {per_cent(high, 1)} %) where at most "
                f"{up_percent(each.bound)} is possible"
            )
            said.append((each, text))
    return said

"""What a flag is, and the results that flags are raised from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from dpbench.report.naming import Naming
from dpbench.report.rivals import rivals
from dpbench.report.rows import is_floor, is_informed, is_of_attack, only, only_labels, reads_no_gradient
from dpbench.report.summary import grouped
from dpbench.store import Store, schema

MARGIN_DB = 1.0
"""By how much one result has to be nearer than another to be called so: median of paired PSNR, dB."""
SHOWN = 3
"""Settings that a flag names with their numbers; of more, it says how many there are."""


@dataclass(frozen=True)
class Flag:
    """A doubt about some results, to be read beside them.

    Attributes:
        kind: what it is about, in the same few words for every flag of its kind.
        text: one sentence with its numbers. It may hold names that users chose: escape it where it is shown.
        keys: the cells that it stands beside, in order; none where it is about no cell of the run.
    """

    kind: str
    text: str
    keys: tuple[str, ...]


class Results:
    """A run's results, and what several flags need of them.

    Args:
        table: per-image results, columns of `dpbench.store.columns`.
        store: the folder they lie in; None where they lie in none.
    """

    def __init__(self, table: pd.DataFrame, store: Store | None = None) -> None:
        self.table = schema.numbered(table)
        self.store = store
        self.naming = Naming(self.table)

    @cached_property
    def well(self) -> pd.DataFrame:
        """Rows of attacks that ended well, no floors."""
        return only(self.table, is_of_attack(self.table) & ~is_floor(self.table))

    @cached_property
    def rebuilt(self) -> pd.DataFrame:
        """Those of `well` about images rebuilt from a gradient, not about candidates or labels alone."""
        other = is_informed(self.well) | only_labels(self.well) | reads_no_gradient(self.well)
        return only(self.well, ~other & self.well["psnr"].notna())

    @cached_property
    def floors(self) -> dict[str, pd.DataFrame]:
        """`dpbench.report.rivals.rivals` of the table."""
        return rivals(self.table)

    @cached_property
    def conditions(self) -> tuple[pd.DataFrame, pd.Series]:
        """`dpbench.report.summary.grouped` of the table."""
        return grouped(self.table)

    def settings(self, rows: pd.DataFrame) -> Iterator[tuple[pd.Series, pd.DataFrame]]:
        """(line of the summary, its rows) for each condition among `rows`, in the order of tables."""
        lines, group = self.conditions
        own = group[rows.index]
        for index in lines.index.intersection(own.unique(), sort=False):
            yield lines.loc[index], only(rows, own == index)

    def place(self, line: pd.Series) -> str:
        """Where a condition stands: its defence, and the section where there are several."""
        where = f"under {self.naming.defence(line)}"
        several = self.table["batch_size"].nunique() > 1 or self.naming.headings
        return f"{where} in {self.batch(line)}" if several else where

    def batch(self, line: pd.Series) -> str:
        """The section of a condition, in words."""
        return ", ".join([f"batches of {line['batch_size']}", *self.naming.heading(line)])


Raise = Callable[[Results], Iterator[Flag]]
"""Raises the flags of one kind."""


def keys(rows: pd.DataFrame) -> tuple[str, ...]:
    """The cells of some rows."""
    return tuple(rows["key"].dropna().unique())


def listed(parts: Sequence[str]) -> str:
    """The first settings, and how many more there are.

    Example:
        >>> listed(["a", "b", "c", "d", "e"])
        'a; b; c; and in 2 more settings'
    """
    more = len(parts) - SHOWN
    words = [*parts[:SHOWN], *([f"and in {more} more setting{'s' if more > 1 else ''}"] if more > 0 else [])]
    return "; ".join(words)

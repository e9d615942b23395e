"""What a comparison of a run with stored results found."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import pandas as pd


@dataclass(frozen=True)
class Departure:
    """One way in which rows of one kind depart.

    Attributes:
        kind: attack and defence.
        column: what differs; `row` where a row has no counterpart.
        rows: how many rows.
        example: the largest difference, or the first row, in words.
    """

    kind: tuple[str, str]
    column: str
    rows: int
    example: str


@dataclass
class Findings:
    """What a comparison found.

    Attributes:
        compared: pairs of rows whose figures were compared.
        exact: those of them that had to be equal to the last digit.
        departures: where the run departs.
        left_out: what could not be compared, a line each.
    """

    compared: int = 0
    exact: int = 0
    departures: list[Departure] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    @property
    def agrees(self) -> bool:
        """Whether anything was compared and nothing departs."""
        return not self.departures and self.compared > 0


@dataclass(frozen=True)
class Matched:
    """Pairs of rows of one kind, with one index.

    Attributes:
        kind: attack and defence.
        there: stored rows.
        here: this run's.
        exact: whether a pair has to be equal to the last digit.
        both_wrote: columns of both; of any other, what only one of them fills is not compared.
    """

    kind: tuple[str, str]
    there: pd.DataFrame
    here: pd.DataFrame
    exact: pd.Series
    both_wrote: frozenset[str]

    def __getitem__(self, which: pd.Series) -> Matched:
        return replace(self, there=self.there[which], here=self.here[which], exact=self.exact[which])

    def column(self, name: str) -> tuple[pd.Series, pd.Series]:
        """The stored values and this run's; empty where a table lacks the column."""
        return column(self.there, name), column(self.here, name)

    def departure(self, name: str, which: pd.Series, said: str = "", worst: Any = None) -> Departure:
        """That the pairs `which` depart in a column; the pair `worst`, else the first, is the example."""
        row = which.index[which][0] if worst is None else worst
        there, here = (values[row] for values in self.column(name))
        values = said or f"{there} there, {here} here"
        return Departure(self.kind, name, int(which.sum()), f"{values}; {place(self.here.loc[row])}")


def place(row: pd.Series) -> str:
    """Which image a row is about."""
    return f"batch of {row['batch_size']}, seed {row['batch_seed']}, image {row['image']}"


def column(table: pd.DataFrame, name: str) -> pd.Series:
    """A column, empty if the table has none of that name."""
    return table[name] if name in table else pd.Series(pd.NA, index=table.index)

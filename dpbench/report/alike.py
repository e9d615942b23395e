"""What is said of rows, worked out once for all rows that are alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from dpbench.store.columns import conditions
from dpbench.system.once import once

Said = TypeVar("Said")


def said_of(table: pd.DataFrame, say: Callable[[Mapping[str, Any]], Said]) -> list[Said]:
    """What `say` says of each row. It is called once for all rows that agree in every condition.

    A run has tens of thousands of rows and a few dozen combinations of settings.

    Args:
        table: results or their summary, columns of `dpbench.store.columns`.
        say: called with a row's conditions, and nothing else of it: not its seeds, image or measurements.
    """
    rows, which = _distinct(table)
    said = [say(row) for row in rows]
    return [said[i] for i in which]


@once
def _distinct(table: pd.DataFrame) -> tuple[list[dict[str, Any]], np.ndarray]:
    """The conditions of the first of all rows that are alike, and for each row which of them are its own."""
    known = [name for name in conditions() if name in table]
    alike = np.zeros(len(table), dtype=np.int64)
    found = {}
    for name in known:
        codes, values = pd.factorize(table[name], use_na_sentinel=False)
        found[name] = codes, [None if value is pd.NA else value for value in values.tolist()]
        if len(values) > 1:
            _, alike = np.unique(alike * len(values) + codes, return_inverse=True)
    _, firsts, which = np.unique(alike, return_index=True, return_inverse=True)
    # from the values that are known by now: taking these rows out of the table costs as much again
    return [{name: values[codes[i]] for name, (codes, values) in found.items()} for i in firsts], which

"""Rows and tables that hold to the columns: checked, typed, in order.

Images are RGB in [0, 1]. A missing value is empty in CSV, NaN in a float column and `pandas.NA` in the
others.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow

from dpbench import __version__
from dpbench.protocol import InputError
from dpbench.store.columns import Column, columns
from dpbench.system.once import once

Row = dict[str, Any]
_ARROW: dict[str, pyarrow.DataType] = {
    "string": pyarrow.large_string(),
    "Int64": pyarrow.int64(),
    "float64": pyarrow.float64(),
    "boolean": pyarrow.bool_(),
}
_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "Int64": (int,),
    "float64": (float, int),
    "boolean": (bool,),
}
_PANDAS = {name: pd.api.types.pandas_dtype(name) for name in _ARROW}
_ANY = (str, int, float, bool, type(None))


def checked(row: Mapping[str, Any]) -> Row:
    """Check one row against the schema and drop its missing values.

    Args:
        row: column names to plain values, NumPy scalars or one-element tensors; None and NaN are missing.

    Returns:
        The row in plain Python values, in the schema's order.

    Raises:
        ValueError: an unknown column, or a value of another type than the column's.

    Example:
        >>> checked({"seconds": 12, "attack": "dlg", "image_loss": None})
        {'attack': 'dlg', 'seconds': 12.0}
        >>> checked({"sceonds": 12.0})
        Traceback (most recent call last):
        ...
        ValueError: Unknown column(s) sceonds; declare them (dpbench/store/columns.py) or correct the name.
    """
    if names := sorted(unknown(row)):
        raise ValueError(
            f"Unknown column(s) {', '.join(names)}; declare them (dpbench/store/columns.py) or correct the "
            "name."
        )
    values = {name: plain(column, row[name]) for name, column in columns().items() if name in row}
    return {name: value for name, value in values.items() if value is not None}


def unknown(row: Mapping[str, Any]) -> Row:
    """What a row holds in columns that no part which is loaded declares."""
    return {name: row[name] for name in row.keys() - columns().keys()}


def kept(rows: Any, key: str) -> list[Row]:
    """Check what a cell's file holds, which anybody may have written.

    Columns that this version does not know are let through: another version may have had them.

    Args:
        rows: anything that JSON can hold.
        key: the cell's.

    Raises:
        ValueError: that is no list of rows of plain values, or a value does not fit its column.

    Example:
        >>> kept([{"key": "a", "psnr": "1 dB"}], "a")
        Traceback (most recent call last):
        ...
        ValueError: it is of another version's schema: psnr is '1 dB'
    """
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError("it holds no list of rows")
    known = columns()
    for row in rows:
        if row.get("key") != key:
            raise ValueError("its rows are those of another cell")
        for name, value in row.items():
            kinds = _TYPES[known[name].dtype] if name in known else _ANY
            if type(value) not in kinds or not _storable(value):
                raise ValueError(f"it is of another version's schema: {name} is {repr(value)[:100]}")
    return rows


def frame(rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Put checked rows into a table with every column of the schema, each of its dtype."""
    return to_pandas(pyarrow.Table.from_batches([record_batch(list(rows))]))


def record_batch(rows: Sequence[Mapping[str, Any]]) -> pyarrow.RecordBatch:
    """The same in Arrow's compact form.

    Raises:
        pyarrow.ArrowInvalid, pyarrow.ArrowTypeError: a value that does not fit its column.
    """
    arrays = [
        pyarrow.array([row.get(name) for row in rows], _ARROW[column.dtype])
        for name, column in columns().items()
    ]
    return pyarrow.RecordBatch.from_arrays(arrays, names=list(columns()))


def to_pandas(table: pyarrow.Table) -> pd.DataFrame:
    """A table of `record_batch`es in the schema's dtypes; `table` is used up."""
    kinds = {arrow: _PANDAS[dtype] for dtype, arrow in _ARROW.items()}
    del kinds[pyarrow.float64()]  # NumPy's own
    return table.to_pandas(types_mapper=kinds.get, split_blocks=True, self_destruct=True)


@once
def conform(table: pd.DataFrame) -> pd.DataFrame:
    """Give a table the schema's columns in order and dtype; missing ones are empty, unknown ones go last.

    Where there is nothing to do, it is the table itself.
    """
    table = _with_floors(table)
    known = columns()
    wanted = [*known, *(name for name in table.columns if name not in known)]
    dtypes = {name: _PANDAS[column.dtype] for name, column in known.items()}
    if list(table.columns) == wanted and dict(table.dtypes[list(dtypes)]) == dtypes:
        return table
    return table.reindex(columns=wanted).astype(dtypes)


def undeclared(table: pd.DataFrame, least: int = 2) -> list[str]:
    """Columns of this version's rows that no part which is loaded declares, and that take several values.

    They may be settings of a plug-in. Whoever groups rows without them takes different settings for one.
    Other versions may have had columns that this one has not, so their rows do not count.

    Args:
        table: results.
        least: how many values, 1 or more; a setting that is the same everywhere takes 1.
    """
    names = [name for name in table.columns if name not in columns()]
    ours = table[table["version"] == __version__] if "version" in table else table[:0]
    return [name for name in names if ours[name].nunique() >= least]


def check_declared(table: pd.DataFrame, path: str | Path) -> None:
    """InputError where rows of `path` cannot be told apart, because a plug-in is not loaded."""
    if found := undeclared(table):
        raise InputError(
            f"{path} has the column {found[0]} of a plug-in that is not loaded, without which different "
            "settings would be taken for one: give the run's own command again, which makes its page, or "
            "install the plug-in as an entry point (docs/own-parts.md)."
        )


def numbered(table: pd.DataFrame) -> pd.DataFrame:
    """`conform`, with the rows numbered from 0; likewise the table itself where there is nothing to do."""
    table = conform(table)
    return table if table.index.identical(pd.RangeIndex(len(table))) else _renumbered(table)


@once
def _renumbered(table: pd.DataFrame) -> pd.DataFrame:
    return table.reset_index(drop=True)


def with_modes(table: pd.DataFrame) -> pd.DataFrame:
    """`table` with the `mode` of the same victim's other rows where a cell ended before it was known.

    A process that is killed leaves nothing of a model of somebody's own. Without its mode the cell would be
    about another victim.
    """
    if not table["mode"].isna().any():
        return table
    victim = table.groupby(["model", "norm", "victim", "weights"], dropna=False)["mode"]
    alone = victim.transform("first").where(victim.transform("nunique") == 1)
    return table.assign(mode=table["mode"].fillna(alone))


def _with_floors(table: pd.DataFrame) -> pd.DataFrame:
    """`table` with the column `floor`, which version 0.1 kept in the attack's name alone."""
    if "attack" not in table:
        return table
    attack = table["attack"].astype("string")
    prefixed = attack.str.startswith("floor:")
    if "floor" in table and not (table["floor"].isna() & prefixed.fillna(False)).any():
        return table
    named = attack.str.removeprefix("floor:").where(prefixed)
    return table.assign(floor=table["floor"].fillna(named) if "floor" in table else named)


def _storable(value: str | int | float | bool) -> bool:
    """Whether a table can hold it: text that is UTF-8, integers of 64 bits."""
    if isinstance(value, str):
        return value.isascii() or value == _utf8(value)
    return not isinstance(value, int) or -(2**63) <= value < 2**63


def _utf8(text: str) -> str:
    """`text` with question marks for what has no place in UTF-8, as in names of files by other encodings."""
    return text.encode("utf-8", errors="replace").decode()


def plain(column: Column, value: Any) -> str | int | float | bool | None:
    """A value of a column as Python's own; None where it is missing, as NaN is.

    Raises:
        ValueError: for a value of another type than the column's.
    """
    if hasattr(value, "item"):
        value = value.item()
    if value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value)):
        return None
    # bool is an int to Python, but a True among counts is a mistake
    if not isinstance(value, _TYPES[column.dtype]) or (isinstance(value, bool) and column.dtype != "boolean"):
        raise ValueError(f"Column {column.name} holds {column.dtype}, not {value!r}.")
    if isinstance(value, str):
        return _utf8(value)
    if not _storable(value):
        raise ValueError(f"Column {column.name} holds integers of 64 bits, not {value!r}.")
    return float(value) if column.dtype == "float64" else value

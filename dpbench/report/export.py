"""Everything that is made from a run's cells, written into its folder."""

from __future__ import annotations

import json
import traceback
import warnings
from pathlib import Path

import pandas as pd
import pyarrow
import pyarrow.csv
import pyarrow.parquet

from dpbench.protocol import InputError
from dpbench.report import adaptive, entries, escape, page, tables
from dpbench.report.plots import as_plot, files, plots
from dpbench.report.published import published
from dpbench.report.summary import summary
from dpbench.store import Store, attach_floors, environment, schema
from dpbench.system.atomic import written
from dpbench.system.once import kept
from dpbench.system.output import Notice


def export(store: Store, table: pd.DataFrame | None = None) -> list[Path]:
    """Write data, tables, every registered plot, the entry and the page, each file wholly or not at all.

    Each plot is `plots/NAME.svg`, `.pdf` and `.png`, and `plots/NAME-column.*` for a column of a paper.

    A plot or an entry that fails is left out with a warning: it must not cost the others.

    Args:
        store: the run.
        table: its results, floors attached; by default all that it holds.

    Returns:
        The files written.

    Raises:
        InputError: the disk is full or the folder cannot be written; older files stay as they were.
    """
    with kept():
        table = schema.conform(attach_floors(store.frame()) if table is None else table)
        made = [*export_data(store, table), *_tables(store, table), *_plots(store, table)]
        made += _entry(store, table)
        return [*made, page.write(store, table)]  # last, as it shows what lies in the folder


def export_data(store: Store, table: pd.DataFrame | None = None) -> list[Path]:
    """Write the results, their sums and `environment.json`; arguments as `export`.

    The sums are `summary.csv` and, where attacks ran adaptive and not, `adaptive.csv`.
    """
    table = schema.conform(attach_floors(store.frame()) if table is None else table)
    compared = adaptive.gains(table)
    described = json.dumps(environment.describe(), indent=2) + "\n"
    return [
        written(store.path / "results.parquet", lambda path: _parquet(table, path)),
        written(store.path / "results.csv", lambda path: _csv(table, path)),
        written(store.path / "summary.csv", lambda path: summary(table).to_csv(path, index=False)),
        *(
            []
            if compared.empty
            else [written(store.path / "adaptive.csv", lambda path: compared.to_csv(path, index=False))]
        ),
        written(store.path / "environment.json", lambda path: path.write_text(described, encoding="utf-8")),
    ]


def _parquet(table: pd.DataFrame, path: Path) -> None:
    with path.open("wb") as file:  # pyarrow, and pandas 2 with a file's name, open only names that are UTF-8
        pyarrow.parquet.write_table(pyarrow.Table.from_pandas(table, preserve_index=False), file)


def _csv(table: pd.DataFrame, path: Path) -> None:
    with path.open("wb") as file:  # as above
        pyarrow.csv.write_csv(pyarrow.Table.from_pandas(table, preserve_index=False), file)


def _tables(store: Store, table: pd.DataFrame) -> list[Path]:
    beside = [f"- {escape.markdown(line)}." for line in published(table)]
    texts = {
        "table.md": "\n".join([tables.to_markdown(table), *beside, *_adaptive(table)]),
        "table.tex": tables.to_tex(table),
    }
    return [
        written(store.path / name, lambda path, text=text: path.write_text(text, encoding="utf-8"))
        for name, text in texts.items()
    ]


def _adaptive(table: pd.DataFrame) -> list[str]:
    found = adaptive.readable(adaptive.gains(table))
    return [] if found is None else [tables.of_gains(found)]


def _plots(store: Store, table: pd.DataFrame) -> list[Path]:
    found = []
    for name, draw in plots.items():
        try:
            found += files.draw(as_plot(draw, name), table, store)
        except InputError:  # nothing can be written here
            raise
        except Exception as error:
            _warn(f"{name} was not drawn", error)
    return found


def _entry(store: Store, table: pd.DataFrame) -> list[Path]:
    try:
        return [entries.write(store, table)]
    except InputError:
        raise
    except Exception as error:
        _warn(f"{entries.FILE} was not written", error)
        return []


def _warn(what: str, error: Exception) -> None:
    where = traceback.extract_tb(error.__traceback__)[-1]
    reason = f"{type(error).__name__}: {error} ({where.filename}:{where.lineno})"
    warnings.warn(escape.plain(f"{what}: {reason}."), Notice, stacklevel=3)

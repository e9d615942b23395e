"""Results on disk: one file per cell, each wholly there or not at all, so that a run can be taken up again.

A run's folder holds

- `config.toml`: what was asked for; written before anything else,
- `cells.csv`: key and description of every cell that belongs to it,
- `cells/<key>.safetensors`: one per cell, its rows as JSON in the header and its pictures behind it,
- `failed/<key>.safetensors`: likewise, for cells that broke; a later success takes its place in `cells`,
- `set-aside/cells`, `set-aside/failed`: likewise, cells of other code or of another run, which do not count,
- `logs/<key>.log`: when a cell was run, how it ended, and the traceback where it broke,
- `results.parquet`, `results.csv`, `summary.csv`, `environment.json`, tables and plots: made from the cells
  by `dpbench.report.export`.

The columns are those of `dpbench.store.columns`.
"""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow

from dpbench.protocol import InputError
from dpbench.store import cell_file, schema
from dpbench.store.cell_file import SUFFIX, StoredCell
from dpbench.store.schema import Row
from dpbench.system.atomic import refused_as_sentence, replacing
from dpbench.system.paths import listed, open_file

CELLS = "cells.csv"
ASIDE = "set-aside"
TABLES = ("results.parquet", "results.csv")
"""Any of them is there once a run was exported."""
_MISFITS = (pyarrow.ArrowException, ValueError, TypeError, OverflowError)
_CHUNK = 2_000  # cells turned into a table at a time: bounds the Python objects alive during an export


class Store:
    """The cells of one run's folder; any number of processes may write, as long as the cells differ."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._cells, self._failed, self._logs = (self.path / name for name in ("cells", "failed", "logs"))

    def expect(self, cells: Iterable[tuple[str, str]]) -> None:
        """Note which cells belong to the run: (key, description), in the order they run.

        Raises:
            InputError: the disk is full or the folder cannot be written.
        """
        with (
            replacing(self.path / CELLS) as temporary,
            temporary.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file,
        ):
            csv.writer(file, lineterminator="\n").writerows(cells)

    def expected(self) -> dict[str, str]:
        """Key to description, as noted by `expect`; empty where nothing was, or it cannot be read."""
        try:
            with io.TextIOWrapper(open_file(self.path / CELLS), encoding="utf-8", newline="") as file:
                return {row[0]: row[1] for row in csv.reader(file) if len(row) == 2 and _is_key(row[0])}
        except (OSError, InputError, UnicodeDecodeError, csv.Error):
            return {}

    def has(self, key: str) -> bool:
        """Whether cell `key` is done: its file is sound and none of its rows failed."""
        return self._file(key).exists() and cell_file.read(self._file(key)) is not None

    def done(self) -> set[str]:
        """Keys of the cells that are done, as `has`: every file is read and checked."""
        return {key for key in _keys(self._cells) if cell_file.read(self._file(key)) is not None}

    def counts(self) -> tuple[set[str], set[str]]:
        """Keys of the files of finished and of failed cells, by their names alone: fast, damage unseen."""
        finished = set(_keys(self._cells))
        return finished, set(_keys(self._failed)) - finished

    def write(
        self,
        key: str,
        rows: Sequence[Mapping[str, Any]],
        images: Any = None,
        originals: Any = None,
        history: Sequence[float] = (),
        history_steps: Sequence[int] = (),
    ) -> None:
        """Put a cell on disk, in place of an older one of that key.

        Args:
            key: letters, digits, `-` and `_` only.
            rows: checked against the schema; `key` is filled in.
            images: reconstructions, array or tensor [rows, 3, H, W] in [0, 1] (clamped); `images[i]` belongs
                to `rows[i]`. Kept as 8 bits per channel: what was measured before stands in the rows.
            originals: the attacked images, likewise.
            history: objective of the search; at most `cell_file.MOST_STEPS` values are kept.
            history_steps: iterations that were over at each of them; empty where they are evenly apart.

        Raises:
            ValueError: a row that does not fit the schema, or a key that is no plain name.
            InputError: the disk is full or the folder cannot be written.
        """
        named = [{**row, "key": key} for row in rows]
        data = cell_file.content(named, images, originals, history, history_steps)
        broken = any(row.get("status") == "failed" for row in rows)
        path = self._broken(key) if broken else self._file(key)
        with refused_as_sentence(path):
            path.parent.mkdir(exist_ok=True)  # never the run's folder itself: whoever moved it has the rest
        with replacing(path) as temporary:
            temporary.write_bytes(data)
        if not broken:
            with refused_as_sentence(self._broken(key)):
                self._broken(key).unlink(missing_ok=True)

    def read(self, key: str) -> StoredCell:
        """Read a cell.

        Raises:
            KeyError: there is none, or its file is damaged (then a warning names it).
        """
        for path in (self._file(key), self._broken(key)):
            if path.exists() and (cell := cell_file.read(path)) is not None:
                return cell
        raise KeyError(key)

    def failure(self, key: str) -> str:
        """Why cell `key` failed."""
        cell = cell_file.read(self._broken(key))
        lost = "for a reason that is lost, its file is damaged"
        return cell.rows[0].get("error", lost) if cell and cell.rows else lost

    def log_file(self, key: str) -> Path:
        """Where the log of cell `key` lies, or would."""
        return self._logs / f"{key}.log"

    def log(self, key: str, text: str) -> None:
        """Add `text` to the log of cell `key`.

        Raises:
            InputError: the disk is full or the folder cannot be written.
        """
        path = self.log_file(key)
        with refused_as_sentence(path):
            path.parent.mkdir(exist_ok=True)
            # a link of that name could lead to any file
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW
            with open(os.open(path, flags, 0o666), "a", encoding="utf-8") as file:
                file.write(text)

    def keys(self) -> list[str]:
        """Keys of all cell files, sound or not, in order."""
        return sorted({*_keys(self._cells), *_keys(self._failed)})

    def set_aside(self, keys: Iterable[str]) -> None:
        """Move the files of these cells into the folder `set-aside`.

        Raises:
            InputError: the folder cannot be written.
        """
        self._move(keys, Path(), Path(ASIDE))

    def bring_back(self, keys: Iterable[str]) -> int:
        """The reverse of `set_aside`, for those of these cells that have no file in their place.

        Returns:
            How many there were.

        Raises:
            InputError: as `set_aside`.
        """
        back = set(Store(self.path / ASIDE).keys()) & set(keys) - set(self.keys())
        self._move(back, Path(ASIDE), Path())
        return len(back)

    def frame(self, keys: Iterable[str] | None = None) -> pd.DataFrame:
        """The sound cells' rows as one table with all columns in their dtypes, sorted by content.

        Columns that nothing declares go last: of a plug-in that is not loaded, or of another version.

        Args:
            keys: the cells that count; whatever else lies in the folder, by default those it expects, or all
                where it expects none.
        """
        wanted = list(keys) if keys is not None else sorted(self.expected()) or self.keys()
        cells, batches, others = self._all_rows(wanted), [schema.record_batch([])], []
        while chunk := list(islice(cells, _CHUNK)):
            batch, rows = self._batch(chunk)
            batches.append(batch)
            others += [schema.unknown(row) for row in rows]
        table = schema.to_pandas(pyarrow.Table.from_batches(batches))
        del batches
        if any(others):
            table = pd.concat([table, pd.DataFrame(others)], axis=1)
        order = ["batch_size", "batch_seed", "defense", "eps", "attack", "attack_seed", "key", "image"]
        known = [name for name in order if name in table]  # the parts that bring `eps` may not be loaded
        return schema.with_modes(table).sort_values(known, kind="stable", ignore_index=True)

    def _move(self, keys: Iterable[str], source: Path, target: Path) -> None:
        for key in keys:
            for file in (self._file(key), self._broken(key)):
                name = file.relative_to(self.path)
                old, new = self.path / source / name, self.path / target / name
                with refused_as_sentence(new):
                    if old.exists():
                        new.parent.mkdir(parents=True, exist_ok=True)
                        with suppress(FileNotFoundError):  # another process moves the same files
                            os.replace(old, new)

    def _file(self, key: str) -> Path:
        if not _is_key(key):
            raise ValueError(f"A cell's key is letters, digits, - and _, not {key!r}.")
        return self._cells / f"{key}{SUFFIX}"

    def _broken(self, key: str) -> Path:
        return self._failed / self._file(key).name

    def _all_rows(self, keys: Iterable[str]) -> Iterator[list[Row]]:
        for key in keys:
            for path in (self._file(key), self._broken(key)):
                if path.exists() and (cell := cell_file.read(path)) is not None:
                    yield cell.rows
                    break

    def _batch(self, chunk: list[list[Row]]) -> tuple[pyarrow.RecordBatch, list[Row]]:
        """The rows that fit the schema, in Arrow's form and as they are."""
        rows = [row for cell in chunk for row in cell]
        try:
            return schema.record_batch(rows), rows
        except _MISFITS:
            rows = [row for cell in chunk if self._fits(cell) for row in cell]
            return schema.record_batch(rows), rows

    def _fits(self, rows: list[Row]) -> bool:
        try:
            schema.record_batch(rows)
        except _MISFITS as error:
            key = rows[0].get("key", "")
            cell_file.damaged(self._cells / f"{key}{SUFFIX}", f"it is of another version's schema: {error}")
            return False
        return True


def _keys(folder: Path) -> list[str]:
    """Keys of the cells' files in `folder`; files of other names are none."""
    found = (name.removesuffix(SUFFIX) for name in listed(folder) if name.endswith(SUFFIX))
    return sorted(filter(_is_key, found))


def _is_key(text: str) -> bool:
    return re.fullmatch(r"[A-Za-z0-9_-]{1,200}", text) is not None

"""Results on disk: one file per cell, each wholly there or not at all, so that a run can be taken up again.

A run's folder holds

- `config.toml`: what was asked for; written before anything else,
- `cells.csv`: key and description of every cell that belongs to it,
- `cells/<key>.safetensors`: one per cell, its rows as JSON in the header and its pictures behind it,
- `failed/<key>.safetensors`: likewise, for cells that broke; a later success takes its place in `cells`,
- `logs/<key>.log`: when a cell was run, how it ended, and the traceback where it broke,
- `results.parquet`, `results.csv`, `summary.csv`, `environment.json`, tables and plots: made from the cells
  by `dpbench.report.export`.

The columns are those of `dpbench.store.columns`.
"""

from __future__ import annotations

import csv
import json
import os
import re
import tempfile
import tomllib
import warnings
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow
import tomli_w
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from dpbench.protocol import InputError
from dpbench.store import schema
from dpbench.store.columns import columns
from dpbench.store.schema import Row
from dpbench.system.atomic import clear_leftovers, is_temporary, refused_as_sentence, replacing

_CHUNK = 2_000  # cells turned into a table at a time: bounds the Python objects alive during an export
_TABLE, _TEXT, _CONFIG, _CELLS = "results.parquet", "results.csv", "config.toml", "cells.csv"
_SUFFIX = ".safetensors"


@dataclass(frozen=True)
class StoredCell:
    """What one cell left behind.

    Attributes:
        rows: one per image, and one per image of a floor that came along; missing values are left out.
        images: reconstructions, uint8 [rows, 3, H, W]: `images[i]` and `originals[i]` belong to `rows[i]`.
            None, or no pictures at all, where the cell failed.
        originals: the attacked images, likewise.
    """

    rows: list[Row]
    images: np.ndarray | None
    originals: np.ndarray | None


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
        with replacing(self.path / _CELLS) as temporary, temporary.open("w", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows(cells)

    def expected(self) -> dict[str, str]:
        """Key to description, as noted by `expect`; empty where nothing was."""
        try:
            with (self.path / _CELLS).open(newline="") as file:
                return {row[0]: row[1] for row in csv.reader(file) if len(row) == 2}
        except (OSError, UnicodeDecodeError, csv.Error):
            return {}

    def has(self, key: str) -> bool:
        """Whether cell `key` is done: its file is sound and none of its rows failed."""
        return self._file(key).exists() and self._sound(self._file(key)) is not None

    def done(self) -> set[str]:
        """Keys of the cells that are done; as `has`, but pictures are not read, only known to be there."""
        return {key for key in _keys(self._cells) if self._rows_of(self._file(key)) is not None}

    def counts(self) -> tuple[set[str], set[str]]:
        """Keys of the files of finished and of failed cells, by their names alone: fast, damage unseen."""
        finished = set(_keys(self._cells))
        return finished, set(_keys(self._failed)) - finished

    def write(
        self, key: str, rows: Sequence[Mapping[str, Any]], images: Any = None, originals: Any = None
    ) -> None:
        """Put a cell on disk, in place of an older one of that key.

        Args:
            key: letters, digits, `-` and `_` only.
            rows: checked against the schema; `key` is filled in.
            images: reconstructions, array or tensor [rows, 3, H, W] in [0, 1] (clamped); `images[i]` belongs
                to `rows[i]`. Kept as 8 bits per channel: what was measured before stands in the rows.
            originals: the attacked images, likewise.

        Raises:
            ValueError: a row that does not fit the schema, or a key that is no plain name.
            InputError: the disk is full or the folder cannot be written.
        """
        text = json.dumps([schema.checked({**row, "key": key}) for row in rows])
        pixels = {
            name: _bytes(batch)
            for name, batch in (("images", images), ("originals", originals))
            if batch is not None
        }
        sums = {"rows": text, "rows_crc32": str(zlib.crc32(text.encode())), "pixels_crc32": str(_crc(pixels))}
        broken = any(row.get("status") == "failed" for row in rows)
        path = self._broken(key) if broken else self._file(key)
        with refused_as_sentence(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            temporary.write_bytes(save(pixels, metadata=sums))
        if not broken:
            self._broken(key).unlink(missing_ok=True)

    def read(self, key: str) -> StoredCell:
        """Read a cell.

        Raises:
            KeyError: there is none, or its file is damaged (then a warning names it).
        """
        for path in (self._file(key), self._broken(key)):
            if path.exists() and (cell := self._sound(path)) is not None:
                return cell
        raise KeyError(key)

    def failure(self, key: str) -> str:
        """Why cell `key` failed."""
        rows = self._rows_of(self._broken(key)) or [{}]
        return rows[0].get("error", "for a reason that is lost, its file is damaged")

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
            with path.open("a") as file:
                file.write(text)

    def keys(self) -> list[str]:
        """Keys of all cell files, sound or not, in order."""
        return sorted({*_keys(self._cells), *_keys(self._failed)})

    def frame(self, keys: Iterable[str] | None = None) -> pd.DataFrame:
        """The sound cells' rows as one table with all columns in their dtypes, sorted by content.

        Args:
            keys: the cells that count; whatever else lies in the folder, by default those it expects, or all
                where it expects none.
        """
        wanted = list(keys) if keys is not None else sorted(self.expected()) or self.keys()
        rows, batches = self._all_rows(wanted), [schema.record_batch([])]
        while chunk := list(islice(rows, _CHUNK)):
            batches.append(self._batch(chunk))
        table = schema.to_pandas(pyarrow.Table.from_batches(batches))
        del batches
        order = ["batch_size", "batch_seed", "defense", "eps", "attack", "attack_seed", "key", "image"]
        return table.sort_values(order, kind="stable", ignore_index=True)

    def _file(self, key: str) -> Path:
        if not re.fullmatch(r"[A-Za-z0-9_-]+", key):
            raise ValueError(f"A cell's key is letters, digits, - and _, not {key!r}.")
        return self._cells / f"{key}{_SUFFIX}"

    def _broken(self, key: str) -> Path:
        return self._failed / self._file(key).name

    def _all_rows(self, keys: Iterable[str]) -> Iterator[list[Row]]:
        for key in keys:
            for path in (self._file(key), self._broken(key)):
                if path.exists() and (rows := self._rows_of(path)) is not None:
                    yield rows
                    break

    def _batch(self, chunk: list[list[Row]]) -> pyarrow.RecordBatch:
        try:
            return schema.record_batch([row for cell in chunk for row in cell])
        except (pyarrow.ArrowInvalid, pyarrow.ArrowTypeError):
            return schema.record_batch([row for cell in chunk if self._fits(cell) for row in cell])

    def _fits(self, rows: list[Row]) -> bool:
        try:
            schema.record_batch(rows)
        except (pyarrow.ArrowInvalid, pyarrow.ArrowTypeError) as error:
            key = rows[0].get("key", "")
            _warn(self._cells / f"{key}{_SUFFIX}", f"it is of another version's schema: {error}")
            return False
        return True

    def _rows_of(self, path: Path) -> list[Row] | None:
        """The rows of a sound file, read from its header alone; None with a warning where it is damaged."""
        try:
            with safe_open(path, framework="numpy") as file:  # refuses a file shorter than its header says
                return _rows(file.metadata())
        except _DAMAGE as error:
            _warn(path, error)
            return None

    def _sound(self, path: Path) -> StoredCell | None:
        try:
            with safe_open(path, framework="numpy") as file:
                rows = _rows(file.metadata())
                pixels = {name: file.get_tensor(name) for name in list(file.keys())}
                if int(file.metadata()["pixels_crc32"]) != _crc(pixels):
                    raise ValueError("the pictures do not match their checksum")
        except _DAMAGE as error:
            _warn(path, error)
            return None
        return StoredCell(rows, pixels.get("images"), pixels.get("originals"))


def open_run(path: str | Path, config: Mapping[str, Any]) -> Store:
    r"""Start a run in a folder, or take up the one of the same configuration.

    Args:
        path: the run's folder, made if it is not there.
        config: what decides the run; None means unset and is left out of `config.toml`.

    Returns:
        The folder's store. What `has` finds there need not be run again.

    Raises:
        InputError: the folder holds a run of another configuration, or something that is no run, or cannot
            be written.

    Example:
        >>> folder = tempfile.TemporaryDirectory()
        >>> open_run(Path(folder.name) / "run", {"eps": [1.0]}).keys()
        []
        >>> (Path(folder.name) / "run" / "config.toml").read_text()
        'eps = [\n    1.0,\n]\n'
        >>> folder.cleanup()
    """
    path, wanted = Path(path), _toml(config)
    file = path / _CONFIG
    if path.exists() and not path.is_dir():
        raise InputError(f"{path} is a file, not a folder for results; name another with --out.")
    with refused_as_sentence(path):
        path.mkdir(parents=True, exist_ok=True)
        if file.exists():
            _same(path, _parsed(file), wanted)
        elif foreign := [entry.name for entry in path.iterdir() if not is_temporary(entry)]:
            raise InputError(
                f"{path} holds other files ({foreign[0]}, ...) and no {_CONFIG} of a run; "
                "choose an empty or new folder with --out."
            )
    if not file.exists():
        with replacing(file) as temporary:
            temporary.write_text(tomli_w.dumps(wanted))
    cells = path / "cells"
    with refused_as_sentence(cells):
        cells.mkdir(exist_ok=True)
        with tempfile.TemporaryFile(dir=cells):  # hours of attack must not end in a read-only folder
            pass
        for folder in (path, cells, path / "failed"):
            clear_leftovers(folder)
    return Store(path)


def load(path: str | Path) -> pd.DataFrame:
    """Read a run's results.

    Args:
        path: a run's folder, or a Parquet file that was exported from one. A folder whose run has not ended
            yet gives the cells that are there, floors not filled in; one that was kept without cells and
            Parquet gives its `results.csv`.

    Returns:
        One row per image, with the columns, order and dtypes of `dpbench.store.columns`.

    Raises:
        InputError: nothing there that dpbench wrote.
    """
    path = Path(path)
    if path.is_dir():
        if not (path / _CONFIG).exists():
            raise InputError(f"{path} is no folder of results: it has no {_CONFIG}.")
        if not (path / _TABLE).exists():
            store = Store(path)
            if not store.keys() and (path / _TEXT).exists():
                return _read_csv(path / _TEXT)
            return store.frame()
        path = path / _TABLE
    if not path.exists():
        raise InputError(f"There are no results at {path}; name a run's folder or its {_TABLE}.")
    try:
        table = pd.read_parquet(path)
    except (pyarrow.ArrowInvalid, OSError, ValueError) as error:
        raise InputError(
            f"{path} is no readable Parquet file; name a run's folder or its {_TABLE}."
        ) from error
    return schema.conform(table)


def _read_csv(path: Path) -> pd.DataFrame:
    dtypes = {name: column.dtype for name, column in columns().items()}
    try:
        # a word such as "None" is a word; only what is empty is missing
        table = pd.read_csv(path, dtype=dtypes, keep_default_na=False, na_values=[""])
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is no readable table of results ({error}).") from error
    return schema.conform(table)


def _keys(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return sorted(
                entry.name.removesuffix(_SUFFIX) for entry in entries if entry.name.endswith(_SUFFIX)
            )
    except FileNotFoundError:
        return []


_DAMAGE = (SafetensorError, ValueError, KeyError, TypeError, OSError)


def _rows(metadata: Mapping[str, str]) -> list[Row]:
    text = metadata["rows"]
    if int(metadata["rows_crc32"]) != zlib.crc32(text.encode()):
        raise ValueError("the rows do not match their checksum")
    return json.loads(text)


def _warn(path: Path, error: Exception | str) -> None:
    warnings.warn(f"{path} is damaged and counts as missing ({error}).", RuntimeWarning, stacklevel=3)


def _bytes(batch: Any) -> np.ndarray:
    if hasattr(batch, "detach"):
        batch = batch.detach().cpu()
    # a failed search may hand back NaN, which has no place in a byte: black, and the row says failed
    values = np.nan_to_num(np.asarray(batch, dtype=np.float32), nan=0.0)
    return np.ascontiguousarray(np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8))


def _crc(pixels: Mapping[str, np.ndarray]) -> int:
    total = 0
    for name in sorted(pixels):
        total = zlib.crc32(pixels[name].tobytes(), total)
    return total


def _toml(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _toml(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [_toml(item) for item in value]
    return value if isinstance(value, bool | int | float | str) else str(value)


def _parsed(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(
            f"{file} is damaged ({error}); choose another folder with --out, or restore that file."
        ) from error


def _same(path: Path, held: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    if "version" in held and "version" in wanted and held["version"] != wanted["version"]:
        raise InputError(
            f"{path} was written by dpbench {held['version']}, and this is {wanted['version']}: it is left "
            "as it is and can still be read (dpbench.load); name another folder with --out, or install that "
            "version to resume it."
        )
    differing = [key for key in {**held, **wanted} if held.get(key) != wanted.get(key)]
    if differing:
        shown = ", ".join(
            f"{key} is {held.get(key, 'unset')!r} there and {wanted.get(key, 'unset')!r} here"
            for key in differing[:3]
        )
        more = f" and {len(differing) - 3} more" if len(differing) > 3 else ""
        raise InputError(
            f"{path} holds a run of another configuration ({shown}{more}); choose another folder with --out, "
            f"or give the options in its {_CONFIG} to resume it."
        )

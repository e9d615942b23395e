"""The file of one cell: its rows as JSON in the header, its pictures behind it, checksums of both."""

from __future__ import annotations

import json
import warnings
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from dpbench.store import schema
from dpbench.store.schema import Row
from dpbench.system.output import plain
from dpbench.system.paths import open_file

SUFFIX = ".safetensors"
_DAMAGE = (
    SafetensorError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    OSError,
    RecursionError,
    MemoryError,
)


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


def content(rows: Sequence[Mapping[str, Any]], images: Any, originals: Any) -> bytes:
    """A cell as the bytes of its file; see `Store.write` for the arguments.

    Raises:
        ValueError: a row that does not fit the schema.
    """
    text = json.dumps([schema.checked(row) for row in rows])
    pixels = {
        name: _bytes(batch)
        for name, batch in (("images", images), ("originals", originals))
        if batch is not None
    }
    sums = {"rows": text, "rows_crc32": str(zlib.crc32(text.encode())), "pixels_crc32": str(_crc(pixels))}
    return save(pixels, metadata=sums)


def sound(path: Path) -> StoredCell | None:
    """The whole cell, rows and pictures checked; None with a warning where the file is damaged."""
    try:
        open_file(path).close()  # a pipe of that name would be waited for
        with safe_open(path, framework="numpy") as file:
            rows = _rows(file.metadata(), path.stem)
            pixels = {name: file.get_tensor(name) for name in list(file.keys())}
            if int(file.metadata()["pixels_crc32"]) != _crc(pixels):
                raise ValueError("the pictures do not match their checksum")
    except _DAMAGE as error:
        damaged(path, error)
        return None
    return StoredCell(rows, pixels.get("images"), pixels.get("originals"))


def rows_of(path: Path) -> list[Row] | None:
    """The rows, read from the header alone; None with a warning where the file is damaged."""
    try:
        open_file(path).close()
        with safe_open(path, framework="numpy") as file:  # refuses a file shorter than its header says
            return _rows(file.metadata(), path.stem)
    except _DAMAGE as error:
        damaged(path, error)
        return None


def damaged(path: Path, error: Exception | str) -> None:
    """Warn of a file that cannot be used."""
    text = plain(f"{path} is damaged and counts as missing ({error}).")  # both may hold terminal escapes
    warnings.warn(text, RuntimeWarning, stacklevel=3)


def _rows(metadata: Mapping[str, str], key: str) -> list[Row]:
    text = metadata["rows"]
    if int(metadata["rows_crc32"]) != zlib.crc32(text.encode()):
        raise ValueError("the rows do not match their checksum")
    return schema.kept(json.loads(text), key)


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

"""The file of one cell: its rows as JSON in the header, its pictures behind it, a digest of the whole.

Behind the pictures lies the history of the search, where there was one.

The digest stands in the header as `sha256`. It is that of the file itself with 64 zeros in its place.
"""

from __future__ import annotations

import hashlib
import json
import warnings
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from dpbench.store import schema
from dpbench.store.schema import Row
from dpbench.system.output import Notice, plain
from dpbench.system.paths import open_file

SUFFIX = ".safetensors"
MOST_STEPS = 100
"""Values of a search's history that are kept."""
_OPEN = "0" * 64
"""In place of the digest while it is computed."""
_LENGTH = 8
"""Bytes before the header, which say how long it is."""
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
        history: objective of the search, float32 [n]; None where none was kept.
        history_steps: iterations that were over at each of them, int64 [n]; None where they are evenly apart,
            or nobody kept them.
    """

    rows: list[Row]
    images: np.ndarray | None
    originals: np.ndarray | None
    history: np.ndarray | None = None
    history_steps: np.ndarray | None = None


def content(
    rows: Sequence[Mapping[str, Any]],
    images: Any,
    originals: Any,
    history: Sequence[float] = (),
    history_steps: Sequence[int] = (),
) -> bytes:
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
    if history:
        pixels["history"] = thinned(np.asarray(history, dtype=np.float32))
        if len(history_steps) == len(history):
            pixels["history_steps"] = thinned(np.asarray(history_steps, dtype=np.int64))
    data = save(pixels, metadata={"rows": text, "sha256": _OPEN})
    return data.replace(_field(_OPEN), _field(_digest(data)), 1)


def read(path: Path) -> StoredCell | None:
    """The cell of a file, checked against its digest; None with a warning where the file is damaged."""
    try:
        with open_file(path) as file:  # a pipe of that name would be waited for
            data = file.read()
        header = json.loads(data[_LENGTH : _header_end(data)])
        metadata, pixels = header["__metadata__"], load(data)
        if "sha256" in metadata:
            _check(data, metadata["sha256"])
        else:
            _check_sums(metadata, pixels)
        rows = schema.kept(json.loads(metadata["rows"]), path.stem)
    except _DAMAGE as error:
        damaged(path, error)
        return None
    history = _history(pixels.get("history"))
    steps = pixels.get("history_steps")
    if history is None or steps is None or steps.shape != history.shape or steps.dtype != np.int64:
        steps = None
    return StoredCell(rows, pixels.get("images"), pixels.get("originals"), history, steps)


def thinned(history: np.ndarray) -> np.ndarray:
    """At most `MOST_STEPS` of a history's values, at even steps, the last among them.

    Example:
        >>> thinned(np.arange(1, 251)).tolist()[-2:], len(thinned(np.arange(250)))
        ([248, 250], 100)
    """
    if len(history) <= MOST_STEPS:
        return history
    places = np.ceil(np.arange(1, MOST_STEPS + 1) * len(history) / MOST_STEPS).astype(int) - 1
    return history[places]


def _history(values: np.ndarray | None) -> np.ndarray | None:
    if values is not None and (values.ndim != 1 or values.dtype.kind != "f"):
        raise ValueError("its history is no list of numbers")
    return values


def damaged(path: Path, error: Exception | str) -> None:
    """Warn of a file that cannot be used."""
    text = plain(f"{path} is damaged and counts as missing ({error}).")  # both may hold terminal escapes
    warnings.warn(text, Notice, stacklevel=3)


def _field(digest: str) -> bytes:
    # within a text, rows for instance, the quotation marks would be escaped
    return f'"sha256":"{digest}"'.encode()


def _header_end(data: bytes) -> int:
    return _LENGTH + int.from_bytes(data[:_LENGTH], "little")


def _digest(data: bytes) -> str:
    """SHA-256 of a file whose own digest is `_OPEN`."""
    return hashlib.sha256(data).hexdigest()


def _check(data: bytes, digest: str) -> None:
    if _digest(data.replace(_field(digest), _field(_OPEN), 1)) != digest:
        raise ValueError("it does not match its digest")


def _check_sums(metadata: Mapping[str, str], pixels: Mapping[str, np.ndarray]) -> None:
    """The checksums of rows and pictures that versions before the digest wrote."""
    if int(metadata["rows_crc32"]) != zlib.crc32(metadata["rows"].encode()):
        raise ValueError("the rows do not match their checksum")
    total = 0
    for name in sorted(pixels):
        total = zlib.crc32(pixels[name].tobytes(), total)
    if int(metadata["pixels_crc32"]) != total:
        raise ValueError("the pictures do not match their checksum")


def _bytes(batch: Any) -> np.ndarray:
    if hasattr(batch, "detach"):
        batch = batch.detach().cpu()
    # a failed search may hand back NaN, which has no place in a byte: black, and the row says failed
    values = np.nan_to_num(np.asarray(batch, dtype=np.float32), nan=0.0)
    return np.ascontiguousarray(np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8))

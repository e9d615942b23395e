"""Files that lie beside a run's results, read without trusting whoever wrote them."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path
from typing import Any

import pandas as pd

from dpbench.protocol import InputError
from dpbench.system.paths import kind_of, open_file

LARGEST = 20_000_000
"""Bytes of a file that goes into a page, at most."""


def content(path: Path, at_most: int = LARGEST) -> bytes | None:
    """What a file holds; None where there is none, or it is a link, no plain file, or larger than `at_most`.

    A link is not followed: a folder that somebody sent could have it lead to any file of the reader's, and
    the page is made to be passed on.
    """
    try:
        if path.is_symlink() or kind_of(path) != "file" or path.stat().st_size > at_most:
            return None
        with open_file(path) as file:
            return file.read(at_most)
    except (OSError, InputError):
        return None


def text(path: Path, at_most: int = LARGEST) -> str | None:
    """Likewise as text; bytes that are no UTF-8 become question marks."""
    found = content(path, at_most)
    return None if found is None else found.decode("utf-8", errors="replace")


def from_json(path: Path) -> Any:
    """What a JSON file holds; None where there is none or it cannot be read."""
    found = content(path)
    try:
        return None if found is None else json.loads(found)
    except (ValueError, RecursionError):
        return None


def from_csv(path: Path) -> pd.DataFrame | None:
    """The table of a CSV file; None where there is none or it cannot be read."""
    found = content(path)
    try:
        return None if found is None else pd.read_csv(BytesIO(found), keep_default_na=False, na_values=[""])
    except (ValueError, pd.errors.ParserError, pd.errors.EmptyDataError):
        return None

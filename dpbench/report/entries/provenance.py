"""Where an entry is from, with hashes of what it was made from."""

from __future__ import annotations

import hashlib
import json
import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Any

import pandas as pd

from dpbench.protocol import InputError
from dpbench.store.cell_file import SUFFIX
from dpbench.store.columns import columns
from dpbench.system.paths import kind_of, listed, open_file, read_toml

FILES = ("results.csv", "config.toml", "utility.csv", "environment.json")
_BLOCK = 1 << 20
_LARGEST = 10_000_000


def provenance(folder: Path, table: pd.DataFrame) -> dict[str, Any]:
    """Versions, environment, source and the hashes of a run's files and cells."""
    described = _json(folder / "environment.json")
    packages = described.get("packages")
    return {
        "versions": sorted(table["version"].dropna().unique()),
        "devices": sorted(table["device"].dropna().unique()),
        "git": {name: described.get("git", {}).get(name) for name in ("commit", "dirty")},
        "python": described.get("python"),
        "platform": described.get("platform"),
        "packages": packages if isinstance(packages, dict) else {},
        "files": hashes(folder),
        "cells": cells(folder, table),
    }


def hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of the files of `FILES` that are there."""
    return {name: _sha256(folder / name) for name in FILES if kind_of(folder / name) == "file"}


def cells(folder: Path, table: pd.DataFrame) -> dict[str, Any] | None:
    """How many of the results' cells were kept, and a hash of all of them; None where none was."""
    keys = {f"{key}{SUFFIX}" for key in table["key"].dropna().unique()}
    kept = [name for name in listed(folder / "cells") if name in keys]
    if not kept:
        return None
    whole = hashlib.sha256()
    for name in kept:
        whole.update(f"{name} {_sha256(folder / 'cells' / name)}\n".encode())
    return {"count": len(kept), "sha256": whole.hexdigest()}


def utility(folder: Path) -> pd.DataFrame | None:
    """`utility.csv` of a run in the columns' dtypes; None where there is none.

    Raises:
        InputError: it cannot be read.
    """
    path = folder / "utility.csv"
    if kind_of(path) is None:
        return None
    with open_file(path) as file:
        try:
            table = pd.read_csv(file, keep_default_na=False, na_values=[""])
            table = table.astype({n: c.dtype for n, c in columns().items() if n in table})
            return table.astype({"accuracy": float, "utility_model": "string", "defense": "string"})
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path} is no readable table of accuracies ({error}).") from error


def suite(folder: Path) -> str | None:
    """The suite whose options a run has, but for those of the defence; None where it is none of ours."""
    try:
        config = read_toml(folder / "config.toml")
    except InputError:
        return None
    known = columns()
    free = {"about", "defense", *(name for name, column in known.items() if column.role == "defence")}
    found = []
    for path in sorted((files("dpbench") / "sweep" / "suites").iterdir(), key=lambda each: each.name):
        options = {n: v for n, v in tomllib.loads(path.read_text("utf-8")).items() if n not in free}
        if all(config.get(name) == value for name, value in options.items()):
            found.append((len(options), path.name.removesuffix(".toml")))
    # several may hold where one asks for less than another: the one that asks for most
    return max(found)[1] if found and max(found)[0] > 1 else None


def _json(path: Path) -> dict[str, Any]:
    try:
        with open_file(path) as file:
            found = json.loads(file.read(_LARGEST))
    except (InputError, OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _sha256(path: Path) -> str:
    found = hashlib.sha256()
    with open_file(path) as file:
        while block := file.read(_BLOCK):
            found.update(block)
    return found.hexdigest()

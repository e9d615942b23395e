"""What was stored of a run: its rows, what it was asked for, and where it ran."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet

from dpbench import store
from dpbench.protocol import InputError
from dpbench.system.paths import absolute, kind_of, open_file, read_toml

MACHINE = ("python", "platform", "cpu", "packages", "cpu_threads", "cuda", "arithmetic")
"""Entries of `environment.json` that decide the last digits of a result."""


@dataclass(frozen=True)
class Stored:
    """A run's folder, as far as results are compared with it.

    Attributes:
        path: the folder, as the user named it.
        table: its rows, columns of `dpbench.store.columns`; those that it never had are left out.
        asked: its `config.toml`.
        environment: its `environment.json`; empty where there is none.
        columns: those that its file has, filled or not.
    """

    path: str
    table: pd.DataFrame
    asked: Mapping[str, Any]
    environment: Mapping[str, Any]
    columns: frozenset[str]

    @property
    def name(self) -> str:
        """The folder, with the version and the commit that wrote it."""
        commit = (self.environment.get("git") or {}).get("commit")
        at = f", commit {commit[:7]}" if commit else ""
        return f"{self.path} (dpbench {self.asked.get('version', 'of unknown version')}{at})"

    def both_wrote(self, other: Stored) -> frozenset[str]:
        """The columns in which an empty value is a value: those of both files, if one version wrote them."""
        same_version = self.asked.get("version") == other.asked.get("version")
        return self.columns & other.columns if same_version else frozenset()

    def same_machine(self, other: Stored) -> bool:
        """Whether both ran on one kind of machine with the same packages, so that every digit is equal."""
        return all(
            name in self.environment and self.environment[name] == other.environment.get(name)
            for name in MACHINE
        )


def read(folder: str | Path) -> Stored:
    """Read a run's folder.

    Raises:
        InputError: it holds no rows of a run.
    """
    path = absolute(folder)
    if kind_of(path) != "folder":
        raise InputError(f"There is no folder {folder} to check against.")
    if kind_of(path / "config.toml") is None:
        raise InputError(
            f"{folder} holds no run: it has no config.toml, so no run can be checked against it."
        )
    table = store.load(path)
    if table.empty:
        raise InputError(f"{folder} holds no rows (results.csv or results.parquet) to check against.")
    asked, filled = read_toml(path / "config.toml"), table.dropna(axis=1, how="all")
    return Stored(str(folder), filled, asked, _json(path), _columns(path) or frozenset(table.columns))


def _columns(folder: Path) -> frozenset[str]:
    """The columns of the file of results; none where there are cells only."""
    if kind_of(folder / "results.parquet"):
        with open_file(folder / "results.parquet") as opened:
            return frozenset(pyarrow.parquet.read_schema(opened).names)
    if kind_of(folder / "results.csv"):
        with open_file(folder / "results.csv") as opened:
            return frozenset(pd.read_csv(opened, nrows=0).columns)
    return frozenset()


def _json(folder: Path) -> dict[str, Any]:
    file = folder / "environment.json"
    if kind_of(file) is None:
        return {}
    try:
        with open_file(file) as opened:
            found = json.load(opened)
    except (ValueError, OSError) as error:
        raise InputError(f"{file} cannot be read ({error}).") from error
    return found if isinstance(found, dict) else {}

"""The runs that are compared, read and checked."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import pandas as pd

from dpbench import store
from dpbench.protocol import InputError
from dpbench.report.rows import ended_well, is_floor, is_of_attack, only_labels
from dpbench.store import Store, schema
from dpbench.system.paths import absolute, kind_of

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True)
class Run:
    """One run.

    Attributes:
        letter: what it is called in tables.
        path: its folder, as the user named it.
        table: attacks that ended well, floors left out, with an index of its own.
        failed: cells without a result.
    """

    letter: str
    path: str
    table: pd.DataFrame
    failed: int
    _photographs: dict[tuple, tuple[str, ...]] = field(default_factory=dict, repr=False)

    @cached_property
    def versions(self) -> list[str]:
        """The versions of dpbench that wrote its rows."""
        return sorted(self.table["version"].dropna().unique())

    @cached_property
    def has_cells(self) -> bool:
        """Whether any of its cells was kept."""
        return bool(Store(absolute(self.path)).keys())

    def photographs(self, batch: tuple, key: str) -> tuple[str, ...]:
        """Hashes of the images of a batch, from the cell `key`; empty where the cell was not kept.

        Args:
            batch: what tells the batch from the run's other batches.
            key: of a cell that attacks it.
        """
        if batch not in self._photographs:
            self._photographs[batch] = self._hashed(key)
        return self._photographs[batch]

    def _hashed(self, key: str) -> tuple[str, ...]:
        try:
            cell = Store(absolute(self.path)).read(key)
        except (KeyError, ValueError):
            return ()
        if cell.originals is None:
            return ()
        place = {row["image"]: i for i, row in enumerate(cell.rows) if not row.get("floor")}
        return tuple(
            hashlib.sha256(cell.originals[place[image]].tobytes()).hexdigest() for image in sorted(place)
        )


def read(paths: Sequence[str]) -> list[Run]:
    """Read the runs in these folders.

    Raises:
        InputError: fewer than two of them or more than letters, one named twice, one without results, or two
            that hold the same results.
    """
    if len(paths) < 2:
        raise InputError("Give two or more folders of runs to compare.")
    if len(paths) > len(LETTERS):
        raise InputError(f"At most {len(LETTERS)} runs can be compared at once, not {len(paths)}.")
    resolved = [absolute(path).resolve() for path in paths]
    for place, path in enumerate(resolved):
        if path in resolved[:place]:
            raise InputError(f"{paths[place]} is given twice; compare a run with another one.")
    runs = [_read(letter, path) for letter, path in zip(LETTERS, paths, strict=False)]
    for place, run in enumerate(runs):
        for other in runs[:place]:
            if _same_results(run, other):
                raise InputError(f"{other.path} and {run.path} hold the same results; compare other runs.")
    return runs


def _read(letter: str, path: str) -> Run:
    if kind_of(absolute(path)) is None:
        raise InputError(f"There is no folder {path}.")
    table = store.load(path)
    schema.check_declared(table, path)
    attacked = table[~is_floor(table)]
    well = attacked[is_of_attack(attacked) & ~only_labels(attacked)].reset_index(drop=True)
    failed = attacked.loc[~ended_well(attacked), "key"].nunique()
    if well.empty:
        raise InputError(f"{path} holds no image that was attacked with a result; name another run.")
    return Run(letter, path, well, failed)


def _same_results(run: Run, other: Run) -> bool:
    """Whether one is a copy of the other: the same cells with the same figures."""
    measured = ["key", "image", "psnr", "success", "seconds"]
    first, second = (each.table[measured].sort_values(measured[:2]) for each in (run, other))
    return first.reset_index(drop=True).equals(second.reset_index(drop=True))

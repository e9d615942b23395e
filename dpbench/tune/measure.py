"""Tries values in every setting, trial by trial; what is in the folder is not run again."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from dpbench.cell.spec import Cell, Plain
from dpbench.protocol import InputError
from dpbench.store import Store
from dpbench.store.columns import columns
from dpbench.sweep import loop
from dpbench.sweep.executors import Executor
from dpbench.sweep.tuned import with_values
from dpbench.tune.progress import Display
from dpbench.tune.result import Outcome, Trial
from dpbench.tune.search import Search
from dpbench.tune.setting import Setting
from dpbench.tune.space import Space

MOST = 200.0
"""dB; an image that is exact to the last bit has no finite PSNR."""


class Measurement:
    """Trials of all settings, in one folder.

    Every setting has its trial before any has the next one, so that all have as many whenever it ends.

    Args:
        settings: what is tuned.
        space: what is searched, the same in all.
        metric: that is to be best, the mean over the images.
        seed: of the choice of values.
        results: the folder's cells.
        execute: runs cells.
        display: shows how far it is.

    Attributes:
        counted: keys of the cells that the result rests on.
    """

    def __init__(
        self,
        settings: Sequence[Setting],
        space: Space,
        metric: str,
        seed: int,
        results: Store,
        execute: Executor,
        display: Display,
    ) -> None:
        self._settings, self._metric = settings, metric
        self._results, self._execute, self._display = results, execute, display
        self._higher = columns()[metric].better == "higher"
        self._searches = [Search(space, self._higher, seed) for _ in settings]
        self.counted: dict[str, Cell] = {}

    def run(self, trials: int) -> list[Outcome]:
        """The settings' outcomes.

        Raises:
            InputError: where the attack cannot run as it is by default.
        """
        per_trial = sum(len(each.tuned) for each in self._settings)
        self._display.total(trials * per_trial + 2 * sum(len(each.checked) for each in self._settings))
        tried: list[list[Trial]] = [[] for _ in self._settings]
        for number in range(trials):
            asked = [search.ask() if number else {} for search in self._searches]
            cells = [self._cells(each.tuned, v) for each, v in zip(self._settings, asked, strict=True)]
            self._complete(f"trial {number + 1} of {trials}", cells)
            for done, search, values, own in zip(tried, self._searches, asked, cells, strict=True):
                done.append(self._trial(values, own, needed=number == 0))
                if number:
                    search.tell(done[-1].value)
        best = [self._best(done) for done in tried]
        cells = [
            [self._cells(each.checked, values) for values in ({}, found.values)]
            for each, found in zip(self._settings, best, strict=True)
        ]
        self._complete("check", [own for pair in cells for own in pair])
        return [
            Outcome(
                setting=each,
                trials=tuple(done),
                best=found,
                checks=tuple(self._trial({}, own, needed=False).value for own in pair),
                higher=self._higher,
                metric=self._metric,
            )
            for each, done, found, pair in zip(self._settings, tried, best, cells, strict=True)
        ]

    def _cells(self, cells: Sequence[Cell], values: dict[str, Plain]) -> list[Cell]:
        return [with_values(cell, cell.attack.given | values) for cell in cells]

    def _complete(self, what: str, groups: Sequence[Sequence[Cell]]) -> None:
        """Every cell is in the folder afterwards."""
        cells = {cell.key(): cell for group in groups for cell in group}
        self.counted |= cells
        missing = [cell for key, cell in cells.items() if not self._results.has(key)]
        self._display.round(what, sum(map(len, groups)) - len(missing))
        if missing:
            loop.run(missing, self._results, self._execute, self._display)

    def _trial(self, values: dict[str, Plain], cells: Sequence[Cell], needed: bool) -> Trial:
        rows: list[dict[str, Any]] = []
        for cell in cells:
            found = self._results.read(cell.key()).rows
            if found[0]["status"] != "ok":
                if needed or found[0]["status"] == "skipped":
                    raise InputError(f"An attack has no result, so it cannot be tuned: {found[0]['error']}")
                return Trial(values, None, None)
            rows += [row for row in found if not row.get("floor")]
        if any(row.get(self._metric) is None for row in rows):
            raise InputError(f"The attack rebuilds no images here, so {self._metric} cannot be tuned.")
        value = fmean(min(row[self._metric], MOST) for row in rows)
        return Trial(values, value, fmean(row.get("seconds") or 0.0 for row in rows))

    def _best(self, done: Sequence[Trial]) -> Trial:
        """The first of the best ones."""
        sign = 1 if self._higher else -1
        return max((each for each in done if each.value is not None), key=lambda each: sign * each.value)

"""Runs batches at a noise level until there is a verdict; what is in the folder is not run again."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from itertools import islice

from dpbench.cell.result import CellResult
from dpbench.cell.spec import Cell
from dpbench.frontier.cells import Attacker, Setting, picks
from dpbench.frontier.certified import certified_sigma
from dpbench.frontier.evidence import CHANCE, Verdict, Watch
from dpbench.frontier.progress import Display
from dpbench.frontier.ranking import FIRST_SEED, Ranking
from dpbench.frontier.result import Frontier, Level, Noise, Rate
from dpbench.frontier.sequence import fixed_sequences
from dpbench.privacy import PRIOR_SUCCESS
from dpbench.protocol import InputError
from dpbench.store import Store
from dpbench.sweep import loop
from dpbench.sweep.executors import CellProgress, Executor, Local

QUICK = 10
"""Batches at each level without a verdict."""
AHEAD = 2
"""Batches that are begun together, so that two processes can share a folder."""


class Measurement:
    """The frontiers of one setting, in one folder.

    Args:
        setting: what is measured.
        results: the folder's cells.
        display: shows how far it is.

    Attributes:
        counted: keys of the cells that the result rests on.
    """

    def __init__(self, setting: Setting, results: Store, display: Display) -> None:
        self._setting, self._results, self._display = setting, results, display
        self._rebuilt = _Ranked(Local(), setting.ranking)
        self._picked = _Ranked(Local(setting.ranking.candidates), setting.ranking)
        self.counted: dict[str, Cell] = {}

    def frontier(self, threat_model: str) -> Frontier:
        """Both sequences for the attacks of one threat model, and a few batches at each level between them.

        Raises:
            InputError: where the attacks fail undefended, a cell has no result, or the data set is too small.
        """
        self._setting.ranking.check_verdicts()
        batches = self._setting.ranking.batches
        levels: dict[float, Level] = {}

        def test(sigma: float) -> Verdict:
            levels[sigma] = self._level(threat_model, sigma, batches)
            return levels[sigma].verdict

        ends = fixed_sequences(self._setting.levels, test)
        levels = {sigma: replace(level, verdict=ends.verdict(sigma)) for sigma, level in levels.items()}
        for sigma in self._setting.levels:  # those that neither sequence reached: for the curve
            if sigma not in levels:
                levels[sigma] = self._level(threat_model, sigma, QUICK, verdicts=False)
        return self._result(threat_model, levels, ends.leak_up_to, ends.none_from)

    def curve(self, threat_model: str) -> Frontier:
        """A few batches at every level, without verdicts.

        Raises:
            InputError: where a cell has no result.
        """
        levels = {}
        for sigma in (0.0, *self._setting.levels):
            levels[sigma] = self._level(threat_model, sigma, QUICK, verdicts=False)
        return self._result(threat_model, levels, None, None)

    def _level(self, threat_model: str, sigma: float, most: int, verdicts: bool = True) -> Level:
        attackers = self._setting.attackers[threat_model]
        watch, verdict = Watch(len(attackers), most), None
        self._display.level(threat_model, sigma, watch)
        for succeeded in self._outcomes(attackers, sigma, most):
            found = watch.add(succeeded)
            self._display.batch(watch)
            if found is not None and verdicts:
                verdict = found
                break
        counts = zip(attackers, watch.successes.tolist(), strict=True)
        rates = tuple(Rate.of(attacker.title, count, watch.trials) for attacker, count in counts)
        if verdicts and verdict is None:  # images with copies took some of the batches
            verdict = Verdict.UNDECIDED
        level = Level(noise=self._noise(threat_model, sigma), rates=rates, verdict=verdict)
        self._display.ended(level)
        return level

    def _outcomes(self, attackers: list[Attacker], sigma: float, most: int) -> Iterator[list[bool]]:
        """Whether each attack succeeded, batch by batch."""
        execute = self._picked if picks(attackers[0].threat) else self._rebuilt
        seeds = iter(range(FIRST_SEED, FIRST_SEED + min(most, self._setting.ranking.batches)))
        while ahead := list(islice(seeds, AHEAD)):
            cells = [self._setting.cells(seed)[sigma] for seed in ahead]
            missing = [
                found[attacker]
                for found in cells
                for attacker in attackers
                if not self._results.has(found[attacker].key())
            ]
            if missing:
                loop.run(missing, self._results, execute, self._display)
            for found in cells:
                succeeded = [self._succeeded(found[attacker]) for attacker in attackers]
                if None not in succeeded:
                    self.counted |= {found[attacker].key(): found[attacker] for attacker in attackers}
                    yield succeeded

    def _succeeded(self, cell: Cell) -> bool | None:
        """None where each image of the batch has a copy in the data set."""
        rows = self._results.read(cell.key()).rows
        if rows[0]["status"] != "ok":
            raise InputError(f"An attack has no result, so the frontier stops there: {rows[0]['error']}")
        return next((row["ranked_first"] for row in rows if "ranked_first" in row), None)

    def _noise(self, threat_model: str, sigma: float) -> Noise:
        guarantee = self._setting.guarantee(threat_model, sigma) if sigma else None
        if guarantee is None:
            return Noise(sigma=sigma)
        finite = guarantee.eps is not None and math.isfinite(guarantee.eps)
        return Noise(sigma=sigma, eps=guarantee.eps if finite else None, eps_release=guarantee.eps_release)

    def _result(
        self, threat_model: str, levels: dict[float, Level], leak_up_to: float | None, none_from: float | None
    ) -> Frontier:
        attackers = self._setting.attackers[threat_model]
        far = self._setting.sensitivity(threat_model)
        certified = {kappa: certified_sigma(kappa, sensitivity=far) for kappa in (PRIOR_SUCCESS, CHANCE)}
        return Frontier(
            threat_model=threat_model,
            attacks=tuple(attacker.title for attacker in attackers),
            levels=tuple(levels[sigma] for sigma in sorted(levels)),
            leak_up_to=None if leak_up_to is None else levels[leak_up_to].noise,
            none_from=None if none_from is None else levels[none_from].noise,
            certified={f"{kappa:g}": self._noise(threat_model, s) for kappa, s in certified.items()},
            setting=self._setting.described(),
        )


class _Ranked:
    """An executor that ranks what another one hands over."""

    def __init__(self, inner: Executor, ranking: Ranking) -> None:
        self.slots, self._inner, self._ranking = inner.slots, inner, ranking

    def __call__(self, cells: Iterable[Cell], progress: CellProgress) -> Iterator[tuple[Cell, CellResult]]:
        with closing(self._inner(cells, progress)) as finished:
            for cell, result in finished:
                if result.status == "ok":
                    self._ranking.fill(cell.batch.batch_seed, result)
                yield cell, result

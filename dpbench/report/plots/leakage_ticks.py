"""The x axis of the leakage plot: epsilons at their logarithm, then defences that have none."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from dpbench.report.alike import said_of
from dpbench.report.naming import Naming
from dpbench.report.plots.axes import short
from dpbench.report.plots.style import SMALL
from dpbench.report.plots.wrap import width as width_of
from dpbench.report.plots.wrap import wrap

LINE = 0.145
"""Height of a line of text, inches."""
_TICK, _UPRIGHT = 0.75, 2.3  # the most room for a tick's name, lying and standing, inches


class Ticks:
    """The x axis: epsilons at their logarithm, then one place for each defence without epsilon.

    Names lie where there is room for them side by side, and stand upright where there is not.
    """

    def __init__(self, attacked: pd.DataFrame, naming: Naming, inches: float) -> None:
        self._naming, self.inches = naming, inches
        every = said_of(attacked, budget_of)
        budgets = sorted({budget for budget in every if budget is not None})
        defences = zip(said_of(attacked, naming.defence), every, strict=True)
        names = dict.fromkeys(name for name, budget in defences if budget is None)
        logs = [math.log10(budget) for budget in budgets]
        span = logs[-1] - logs[0] if logs else 0.0
        self.step = max(span / max(len(logs) - 1, 1), 0.5) if len(logs) > 1 else 1.0
        first = logs[-1] + self.step if logs else 0.0
        self.border = first - self.step / 2 if logs and names else None
        self.places = [*logs, *(first + self.step * i for i in range(len(names)))]
        self.limits = self.places[0] - self.step / 2, self.places[-1] + self.step / 2
        self._bare = dict(zip(names, self.places[len(logs) :], strict=True))
        per_inch = (self.limits[1] - self.limits[0]) / self.inches
        texts = [wrap(name.replace(" ", "\n"), _TICK, SMALL) for name in names]
        # each needs half its width on either side, and the border between both kinds is no place for names
        rooms = [width_of(text, SMALL) + 0.06 for text in texts]
        budgets_named = self._staggered(budgets, logs, per_inch)
        self.upright = any(room * per_inch > self.step for room in rooms) or budgets_named is None
        if self.upright:
            budgets_named = _thinned(budgets, logs, LINE * per_inch)
            texts = [wrap(name, _UPRIGHT, SMALL) for name in names]
        self.labels = [*(budgets_named or []), *texts]
        if self.upright:
            self.height = max(width_of(label, SMALL) for label in self.labels)
        else:
            self.height = LINE * max(label.count("\n") + 1 for label in self.labels)

    def place(self, row: Mapping[str, Any]) -> float:
        """Where a row stands."""
        budget = budget_of(row)
        return self._bare[self._naming.defence(row)] if budget is None else math.log10(budget)

    def _staggered(self, budgets: list[float], logs: list[float], per_inch: float) -> list[str] | None:
        """Names of epsilons, one line lower where the one before is too near; None where even that fails."""
        names, lines = [f"ε={short(budget)}" for budget in budgets], []
        ends = [-math.inf] * 3  # where the last name of each line ends, in inches
        for name, log in zip(names, logs, strict=True):
            place, half = log / per_inch, width_of(name, SMALL) / 2 + 0.04
            line = next((line for line, end in enumerate(ends) if place - half >= end), None)
            if line is None:
                return None
            ends[line] = place + half
            lines.append("\n" * line + name)
        return lines


def _thinned(budgets: list[float], logs: list[float], apart: float) -> list[str]:
    """Names of epsilons, none where one before is nearer than `apart`."""
    names, last = [], -math.inf
    for budget, log in zip(budgets, logs, strict=True):
        names.append(f"ε={short(budget)}" if log - last >= apart else "")
        last = log if names[-1] else last
    return names


def budget_of(row: Mapping[str, Any]) -> float | None:
    """Epsilon of a row, the training's or else the release's; None where there is none to place."""
    value = row["eps_release"] if pd.isna(row["eps"]) else row["eps"]
    return float(value) if not pd.isna(value) and 0 < value < math.inf else None

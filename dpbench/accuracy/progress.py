"""What is shown while models are trained: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time

from rich.console import Console
from rich.progress import TextColumn, TimeRemainingColumn

from dpbench import privacy
from dpbench.accuracy.trial import Row, Trial
from dpbench.privacy.rounding import up_places
from dpbench.sweep.progress import duration
from dpbench.sweep.shown import Shown
from dpbench.system.output import plain

MARKS = 5
"""How often in a training the epsilon spent so far is computed."""


class Display(Shown):
    """A context manager around some trainings.

    Args:
        trials: those that are to be done.
        console: where to show it.
        quiet: show nothing.
    """

    def __init__(self, trials: list[Trial], console: Console, quiet: bool = False) -> None:
        left = TimeRemainingColumn(), TextColumn("left")
        super().__init__(console, quiet, *left, speed_estimate_period=120)
        self._total = len(trials)
        self._done = self._steps_before = 0
        self._steps = sum(trial.setting.sampling[1] for trial in trials)
        self._begun = self._seen = time.monotonic()
        self._spent = ""
        self._task = self._bar.add_task("", total=self._steps, state="")

    def features(self, name: str, done: int, total: int) -> None:
        """`done` of `total` images have their features."""
        self._begun += time.monotonic() - self._seen  # says nothing of how long trainings take
        self._seen = time.monotonic()
        words = f"{name}: features of {done}/{total} images"
        self._bar.update(self._task, description=words, state="")
        self._now_and_then(words)

    def step(self, trial: Trial, done: int) -> None:
        """`done` steps of a training are over."""
        total = trial.setting.sampling[1]
        self._seen = time.monotonic()
        if done % max(1, total // MARKS) == 0 or done == total:
            self._spent = "" if self._quiet else _spent(trial, done)
        state = f"step {done}/{total}{self._spent}; {self._done}/{self._total} trainings"
        self._bar.update(
            self._task, completed=self._steps_before + done, description=plain(trial.title()), state=state
        )
        self._now_and_then(f"{trial.title()}: {state}{self._left(self._steps_before + done)}")

    def finished(self, trial: Trial, row: Row) -> None:
        """A training is over."""
        self._done += 1
        self._steps_before += trial.setting.sampling[1]
        self._spent = ""
        found = f"{row['accuracy']:.1%} right, {row['seconds']:.0f} s" if "accuracy" in row else row["error"]
        count = f"{self._done}/{self._total} trainings{self._left(self._steps_before)}"
        self._say(f"{trial.title()}: {found}; {count}")

    def _left(self, reached: int) -> str:
        if not 0 < reached < self._steps:
            return ""
        left = (self._steps - reached) * (time.monotonic() - self._begun) / reached
        return f", about {duration(left)} left"


def _spent(trial: Trial, steps: int) -> str:
    """The epsilon of the steps so far, where there is a guarantee."""
    claim = trial.setting.guarantee
    if claim is None:
        return ""
    accountant = claim.accountant if claim.accountant in ("pld", "prv", "rdp") else "pld"
    spent = privacy.epsilon(claim.noise_multiplier, claim.delta, claim.sample_rate, steps, accountant)
    return f", ε {up_places(spent, 2)} of {up_places(claim.eps, 2)} spent"

"""What came of a tuning: in a sentence, and as the file that `--tuned` takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w

from dpbench.cell.rows import attack_and_defence
from dpbench.cell.spec import Plain
from dpbench.sweep.tuned import setting, with_values
from dpbench.system.atomic import replacing
from dpbench.tune.setting import Setting

FILE = "tuned.toml"
UNITS = {"psnr": " dB"}


@dataclass(frozen=True)
class Trial:
    """What came of some values.

    Attributes:
        values: those chosen; none for the defaults.
        value: mean of the metric over all images; None where the attack failed.
        seconds: mean of a search.
    """

    values: dict[str, Plain]
    value: float | None
    seconds: float | None


@dataclass(frozen=True)
class Outcome:
    """What came of one setting.

    Attributes:
        setting: what was tuned.
        trials: all of them, the defaults first.
        best: the best of them.
        checks: means of the metric on the batches of the check, of the defaults and of the best values; None
            where the attack failed.
        higher: whether higher means are better.
        metric: what was measured.
    """

    setting: Setting
    trials: tuple[Trial, ...]
    best: Trial
    checks: tuple[float | None, float | None]
    higher: bool
    metric: str

    @property
    def better(self) -> bool:
        """Whether the best values do better than the defaults on the batches of the check, too."""
        before, after = self.checks
        if before is None or after is None or not self.best.values:
            return False
        return after > before if self.higher else after < before

    @property
    def values(self) -> dict[str, Plain]:
        """What is kept: the best values, or the defaults where those do no better."""
        return self.best.values if self.better else {}

    def sentence(self) -> str:
        """The setting, what it gained, and where."""
        cell = self.setting.tuned[0]
        where = f"{attack_and_defence(cell)}, batches of {cell.batch.batch_size}"
        tuned = f"{self._said(self.trials[0].value)} to {self._said(self.best.value)}"
        if not self.best.values:
            return f"{where}: no values did better than the defaults ({self._said(self.best.value)})."
        values = ", ".join(f"{name} {_word(value)}" for name, value in self.best.values.items())
        checked = f"{self._said(self.checks[0])} to {self._said(self.checks[1])} on the batches of the check"
        kept = "" if self.better else "; no better there, so the defaults stay"
        return f"{where}: {values}: {tuned}, {checked}{kept}."

    def described(self, places: Sequence[int]) -> dict[str, Any]:
        """For a file; `places` are those of the images in their data set."""
        cell = self.setting.tuned[0]
        kept = with_values(cell, cell.attack.given | self.values).attack.given
        return {
            "setting": setting(cell),
            "values": {name: value for name, value in kept.items() if cell.attack.given.get(name) != value},
            "default": self.trials[0].value,
            "best": self.best.value,
            "check_default": self.checks[0],
            "check_best": self.checks[1],
            "better": self.better,
            "code": cell.runtime.code,
            "images": list(places),
            "trials": [
                {"values": each.values, "value": each.value, "seconds": each.seconds} for each in self.trials
            ],
        }

    def _said(self, value: float | None) -> str:
        digits = ".1f" if self.metric == "psnr" else ".4f"
        return "nothing" if value is None else f"{value:{digits}}{UNITS.get(self.metric, '')}"


def write(folder: Path, content: Mapping[str, Any]) -> None:
    """The file of tuned values; what is None is left out.

    Raises:
        InputError: the folder cannot be written.
    """
    with replacing(folder / FILE) as temporary:
        temporary.write_text(tomli_w.dumps(_present(content)), encoding="utf-8")


def _present(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _present(each) for name, each in value.items() if each is not None}
    return [_present(each) for each in value] if isinstance(value, list | tuple) else value


def _word(value: Plain) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)

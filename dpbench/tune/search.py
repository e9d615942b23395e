"""Which values to try next in one setting: optuna's tree-structured Parzen estimator."""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING

from dpbench.cell.spec import Plain
from dpbench.protocol import InputError
from dpbench.system import seeds
from dpbench.tune.space import Choice, Range, Space

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

STARTUP = 8
"""Values that are drawn at random before the estimator has a say."""
DIGITS = 3
"""Significant digits of a number that is tried."""


class Search:
    """Values for one setting, one trial after the other.

    What is tried depends on the space, the seed and the results so far, and on nothing else: a search that is
    told the same results again goes the same way, so that it can be taken up after an interruption. Two
    settings try the same values until the estimator has a say.

    Args:
        space: what is searched.
        higher: whether higher results are better.
        seed: of the draws.

    Raises:
        InputError: optuna is not installed.

    Example:
        >>> from dpbench.tune.space import Range
        >>> search = Search({"x": Range(0.0, 10.0, log=False, whole=False)}, higher=True, seed=0)
        >>> for _ in range(40):
        ...     x = search.ask()["x"]
        ...     search.tell(-((x - 7) ** 2))
        >>> abs(search.best["x"] - 7) < 0.5
        True
    """

    def __init__(self, space: Space, higher: bool, seed: int) -> None:
        self._optuna, self._seed = installed(), seed
        self._distributions = {name: self._distribution(each) for name, each in space.items()}
        self._study = self._optuna.create_study(direction="maximize" if higher else "minimize")
        self._asked = None

    def ask(self) -> dict[str, Plain]:
        """The next values; `tell` has to follow."""
        number = len(self._study.trials)
        self._study.sampler = self._optuna.samplers.TPESampler(
            n_startup_trials=STARTUP, seed=seeds.seed("tuning", self._seed, number)
        )
        self._asked = self._study.ask(self._distributions)
        return {name: _short(value) for name, value in self._asked.params.items()}

    def tell(self, result: float | None) -> None:
        """What came of the values: None where nothing did."""
        state = self._optuna.trial.TrialState.FAIL if result is None else None
        self._study.tell(self._asked, result, state=state)

    @property
    def best(self) -> dict[str, Plain]:
        """The best values so far."""
        return {name: _short(value) for name, value in self._study.best_params.items()}

    def _distribution(self, each: Range | Choice) -> BaseDistribution:
        kinds = self._optuna.distributions
        if isinstance(each, Choice):
            return kinds.CategoricalDistribution(each.values)
        if each.whole:
            return kinds.IntDistribution(int(each.low), int(each.high), log=each.log)
        return kinds.FloatDistribution(each.low, each.high, log=each.log)


def installed() -> ModuleType:
    """Optuna, silent but for warnings.

    Raises:
        InputError: it is not installed.
    """
    try:
        import optuna
    except ImportError:
        raise InputError("Tuning needs optuna: pip install 'dpbench[tune]'.") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _short(value: Plain) -> Plain:
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value

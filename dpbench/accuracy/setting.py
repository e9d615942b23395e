"""A defence and the training that it is in: which noise, which batches, and whether it can be trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any

import defenses
from defenses import Aggregator, Chain, PostProcessor
from dpbench import privacy
from dpbench.accuracy.update import CLIPPED
from dpbench.cell import parts
from dpbench.cell.spec import Part, Plain
from dpbench.privacy import Budget
from dpbench.privacy.calibration import sampling
from dpbench.protocol import Guarantee, InputError, parameters
from dpbench.sweep.plan import defences

RECIPE = ("train_size", "train_batch_size", "epochs")
"""What every training has, whatever the defence."""
GUARANTEED = ("eps", "delta", "noise_multiplier", "max_grad_norm", "accountant")
"""Columns of a guarantee that are about the training."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A defence with its parameters, and the size, batch and length of the training.

    Attributes:
        defence: a budget's parameters included, where there is one.
        train_size: N.
        train_batch_size: expected batch.
        epochs: passes over the training set.
    """

    defence: Part
    train_size: int
    train_batch_size: int
    epochs: float

    @cached_property
    def sampling(self) -> tuple[float, int]:
        """Sample rate q and steps T.

        Raises:
            InputError: for a batch that is larger than the training set.
        """
        return sampling(self.train_size, self.train_batch_size, self.epochs)

    @cached_property
    def guarantee(self) -> Guarantee | None:
        """The privacy of the whole training; None where there is none.

        Raises:
            InputError: for a budget out of reach, or one of a release.
        """
        name, given = self.defence.name, self.defence.given
        budget = {each: given[each] for each in parameters(Budget) if each in given}
        if parts.is_gaussian(name):
            clip, noise = self._stages[:2]
            if noise.noise_std == 0:
                return None
            sigma = privacy.gaussian_claim(noise.noise_std, self.train_batch_size, clip.max_grad_norm)
        elif parts.is_calibrated(name):
            sigma = given.get("noise_multiplier")
        else:
            return None
        budget |= self.recipe | ({"eps": None} if sigma is not None else {})
        asked = {"max_grad_norm": parts.clip_norm(name, given), "batch_size": 1}
        return Budget(**budget).guarantee(noise_multiplier=sigma, **asked)

    @property
    def recipe(self) -> dict[str, Plain]:
        """Size, batch and length of the training by name."""
        return {name: getattr(self, name) for name in RECIPE}

    @cached_property
    def chain(self) -> Chain:
        """The defence, with the noise of the training's guarantee.

        Raises:
            InputError: for parameters outside their range, and where it cannot be trained.
        """
        if reason := self._why_not():
            raise InputError(reason)
        if parts.is_calibrated(self.defence.name):
            return parts.calibrated(self.defence.name, self._own, self.guarantee)
        return Chain(self._stages)

    @property
    def noisy(self) -> bool:
        """Whether a stage adds Gaussian noise to what the step is made with."""
        names = [stage.name for stage in defenses.stages(self.defence.name)]
        return "dp" in names or "noise" in names

    @property
    def _own(self) -> dict[str, Plain]:
        """The parameters of the stages."""
        return {name: v for name, v in self.defence.parameters if name not in parameters(Budget)}

    @cached_property
    def _stages(self) -> tuple[defenses.Defense, ...]:
        return defenses.create(self.defence.name, **self._own).stages

    def _why_not(self) -> str | None:
        """Why the defence cannot be trained."""
        name, given = self.defence.name, self.defence.given
        if given.get("eps_scope", "training") != "training":
            return (
                "`eps_scope` release is the budget of one release, with which nothing can be trained: use "
                "`eps_scope` training."
            )
        if given.get("unit") == "user":
            return "One client's training is no sample of users: accuracy is measured with `unit` record."
        for stage in defenses.stages(name):
            known = stage.name in CLIPPED
            calibrated = "guarantee" in stage.__dataclass_fields__
            if issubclass(stage, Aggregator) and not known and (stage.remembers or calibrated):
                return f"{stage.name} cannot be trained here: of what is calibrated, only dp can."
            if issubclass(stage, PostProcessor) and stage.remembers and stage.stream is PostProcessor.stream:
                return f"{stage.name} remembers and has no `stream`, so it cannot be trained: give it one."
        return None

    def row(self) -> dict[str, Any]:
        """The columns of the defence and of the training, as far as they are known."""
        known = parts.facts(self.defence, "known", None)
        given = self.defence.given
        taken = parts.defence_parameters(self.defence.name)
        found = {
            each.column: given.get(name, each.default)
            for name, each in taken.items()
            if parts.applies(each, known) and (name in given or each.has_default)
        }
        found |= {"defense": self.defence.name, **self.recipe}
        found["sample_rate"], found["steps"] = self.sampling
        try:
            guarantee = self.guarantee
        except InputError:  # the row's error says so
            return found
        if guarantee is not None and self._why_not() is None:
            found |= {name: getattr(guarantee, name) for name in GUARANTEED}
        return found

    def title(self) -> str:
        """The defence and what is given of it, for messages."""
        symbols, given = parts.symbols(), dict(self.defence.parameters)
        if parts.is_calibrated(self.defence.name) and not {"eps", "noise_multiplier"} & given.keys():
            given["eps"] = parameters(Budget)["eps"].default
        words = [
            f"{symbols.get(name, name)}={value:g}" if isinstance(value, float) else f"{name} {value}"
            for name, value in given.items()
            if value is not None and name not in RECIPE
        ]
        return " ".join([self.defence.name, *words])


def settings(asked: Sequence[str | Part], values: Mapping[str, tuple[Any, ...]]) -> Iterator[Setting]:
    """Every combination of defences and trainings; `none` comes first, once for every training.

    Args:
        asked: defences by name, or with their parameters.
        values: parameters by name, each with the values that are asked for; empty ones keep their defaults.

    Raises:
        InputError: for an unknown defence or parameters that contradict each other.
    """
    declared = parameters(Budget)
    several = [tuple(dict.fromkeys(values.get(name) or (declared[name].default,))) for name in RECIPE]
    for size, batch, epochs in product(*several):
        if batch == "batch":
            raise InputError(
                "Accuracy is of a training whose batches are known: give `train_batch_size` as a number."
            )
        recipe = {"train_size": size, "train_batch_size": batch, "epochs": epochs}
        one = {**values, **{name: (value,) for name, value in recipe.items()}}
        seen: dict[Part, None] = {}
        for each in dict.fromkeys(("none", *asked)):
            for part in defences(each, one):
                kept = tuple((name, value) for name, value in part.parameters if name not in RECIPE)
                seen[Part(name=part.name, parameters=kept)] = None
        for part in seen:
            yield Setting(defence=part, **recipe)

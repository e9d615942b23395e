"""Inverting Gradients (Geiping et al., NeurIPS 2020), as published or with an image prior of our choice."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

from torch import Tensor

from attacks import labels as label_rules
from attacks import parameters as shared
from attacks.adaptation import CLIPS, adapt, adapts, weighs
from attacks.base import Attack, Task, attack, to_images, to_pixels
from attacks.bottleneck import redrawing
from attacks.engine import Schedule, search, step_decay, warm_cosine
from attacks.engine.local_steps import path_of, with_path
from attacks.engine.problem import Problem
from attacks.engine.variables import Frequencies
from attacks.engine.watch import batch_norms
from attacks.finish import COUNT, finished, unfit
from attacks.gaussian_prior import (
    UNDEFENDED,
    UNINFORMED,
    GaussianPrior,
    annealed,
    nat_weight,
    prior_term,
    weighed,
)
from attacks.held import Held, compared, held, untold
from attacks.objectives import Cosine
from attacks.regularisers import Regulariser, TotalVariation
from attacks.softened import Softened, may_not_pay, pays
from dpbench.protocol import Knowledge, Reconstruction, Release, parameter


@dataclass(frozen=True)
class Preset:
    """Weights and steps.

    Attributes:
        learning_rate: highest step, in units of a channel's standard deviation.
        schedule: of the steps, from the highest one and the iterations.
        signed: feed Adam the sign of the gradient.
        frequencies: search cosine coefficients instead of pixels.
        tv: weight of total variation.
        prior_weight: weight of the Gaussian prior, in units of the one that the defence calls for.
        anneal: how many times that weight the search begins with; it falls geometrically.
        finish: share of the iterations that are Gauss-Newton's.
        shares: search for the factors of a clip, where it scaled several images and the release decides them.
        softened: large entries count for less, where there is a prior and `softened.pays` says so; elsewhere,
            errors of small ones would count for more.
        held: the loss gradient of the outputs is that of the release, where the last layer tells it.
    """

    learning_rate: float
    schedule: Callable[[float, int], Tensor]
    signed: bool
    frequencies: bool
    tv: float
    prior_weight: float
    anneal: float = 1.0
    finish: float = 0.0
    shares: bool = False
    softened: bool = False
    held: bool = False


PRESETS = {
    "paper": Preset(
        learning_rate=0.1, schedule=step_decay, signed=True, frequencies=False, tv=0.03, prior_weight=0.0
    ),
    "tuned": Preset(
        learning_rate=0.3,
        schedule=warm_cosine,
        signed=False,
        frequencies=True,
        tv=0.0,
        prior_weight=1.0,
        anneal=10.0,
        finish=0.2,
        shares=True,
        softened=True,
        held=True,
    ),
}
"""`paper`: the published steps. `tuned`: see docs/search.md."""
WITHOUT_STATISTICS = 0.003
"""Weight of total variation in `tuned` where there are no statistics of images for the prior."""
DECISIVE = 5
"""Up to so many times the weight of an exact release a nat leaves it to the release to decide the image."""


@attack("inverting-gradients")
class InvertingGradients(Attack):
    """Matches the gradient's direction, by Adam.

    Attributes:
        preset: a key of `PRESETS`.
        adaptive: as `adaptation.adapt`, and weigh the prior by what is known of the defence.
        engine: backend of the search.
    """

    matches = Cosine
    pictures_only = False
    local_steps = True

    preset: shared.PresetName = shared.preset()
    iterations: int = shared.iterations(1500)
    restarts: int = shared.restarts(1)
    learning_rate: float | None = shared.learning_rate(None)
    tv: float | None = shared.tv(None)
    prior_weight: float | None = shared.prior_weight(None)
    finish: float | None = parameter(
        default=None,
        help="share of the iterations, at the end, that are Gauss-Newton's where the release decides images",
        at_least=0,
        at_most=0.9,
        tuning=(0.05, 0.6),
    )
    adaptive: bool = shared.adaptive()
    update: shared.Update = shared.update()
    engine: str = "auto"

    def run(self, task: Task) -> Reconstruction:
        """See `Attack.__call__`.

        `note` says where there were no statistics of images for the prior, and where the last layer did not
        tell what is to be `held`.
        """
        release, knowledge, preset = task.release, task.knowledge, PRESETS[self.preset]
        labels, source = label_rules.given_or_inferred(release, knowledge, tell=task.tell)
        # where the prior decides as much as the release, what is guessed does harm
        decisive = nat_weight(release) <= DECISIVE * UNDEFENDED
        if preset.held:
            knowledge = held(task, labels, in_part=self.adaptive and decisive)
        path = path_of(release, self.update)
        regularisers, note = self.regularisers(release, knowledge)
        if preset.held:
            note = f"{note} {untold(release, knowledge)}".strip()
        objective = Cosine()
        # beside total variation it was worse than the floors
        prior = any(isinstance(each, GaussianPrior) for each in regularisers)
        if preset.softened and prior and (pays(release) or not self.adaptive):
            # softened, features count like any tensor; in a plain cosine their length would decide
            objective = compared(Softened(objective), release, knowledge)
        if self.adaptive:
            objective = adapt(objective, release)
        variables = None
        if preset.frequencies and knowledge.pictures:
            variables = Frequencies(knowledge.mean, knowledge.std, *knowledge.image_shape[1:])
        # else free shares would leave images to the prior alone
        scaled = weighs(release) and not isinstance(knowledge.loss, Held)  # what is held has the factors
        weighted = self.adaptive and preset.shares and path is None and decisive and scaled
        problem = Problem(
            knowledge, release.gradients, objective, regularisers, variables, path=path, weighted=weighted
        )
        shares = [release.gradients[0].new_zeros(release.batch_size)] if weighted else []
        starts = [task.noise(release.batch_size, *knowledge.image_shape) for _ in range(self.restarts)]
        if task.guess is not None:
            guess = to_pixels(task.guess, knowledge)
            starts[0] = guess if variables is None else variables.inverse(guess)
        redraw = redrawing(problem.model, release, task.generator)
        last = self.last(problem, release)
        searching, whole = self.iterations - last, self.evaluations()
        outcome = search(
            problem,
            [[*with_path([start], path), *shares] for start in starts],
            labels,
            self.schedule(regularisers, searching),
            engine=self.engine,
            signed=preset.signed,
            refresh=redraw,
            every=0 if redraw is None else 1,
            progress=lambda done, _, value: task.progress(done, whole, value),
        )
        if last:
            before = searching * self.restarts
            outcome, said = finished(
                outcome,
                problem,
                labels,
                last,
                lambda done, value: task.progress(before + done, whole, value),
            )
            note = f"{note} {said}".strip()
        elif self.finish:
            why = unfit(problem) or f"they would be fewer than {COUNT}"
            note = f"{note} The Gauss-Newton steps of `finish` were left out: {why}.".strip()
        found = outcome.found[outcome.best]
        images, start = (
            to_images(problem.variables(point), knowledge)
            for point in (found.variables, [starts[outcome.best]])
        )
        answer = outcome.reconstruction(task, outcome.best, images, start, labels, source)
        return replace(answer, note=note)

    @classmethod
    def adapts(cls, stages: Sequence[str], given: Mapping[str, Any]) -> bool:
        """As its objective does, and where noise or zeros decide what the prior weighs.

        And to clips of several images, which scale each one's gradient by a factor that is searched, and to
        whatever may leave errors in small entries.
        """
        own, preset = given.get("prior_weight"), PRESETS[given.get("preset") or "tuned"]
        prior = preset.prior_weight if own is None else own
        scaled = preset.shares and bool(given.get("several")) and not CLIPS.isdisjoint(stages)
        softened = preset.softened and may_not_pay(stages)
        return (prior > 0 and weighed(stages)) or scaled or softened or adapts(stages, Cosine)

    def wants(self) -> frozenset[str]:
        """See `Attack.wants`; the prior is made of statistics."""
        return super().wants() | ({"image_statistics"} if self.resolved().prior_weight else set())

    def resolved(self) -> Self:
        """With the preset's values for None."""
        chosen, own = PRESETS[self.preset], ("learning_rate", "tv", "prior_weight", "finish")
        return replace(self, **{name: getattr(chosen, name) for name in own if getattr(self, name) is None})

    def last(self, problem: Problem, release: Release) -> int:
        """The iterations that are Gauss-Newton's.

        None where they are too few for a step or the problem is `unfit` for them; and, unless asked for,
        none where the prior decides as much as the release, or in a network with batch norm, where they did
        no better.
        """
        share = self.resolved().finish
        guessed = self.adaptive and nat_weight(release) > DECISIVE * UNDEFENDED
        if self.finish is None and (guessed or batch_norms(problem.model)):
            return 0
        asked = round(share * self.iterations)
        return asked if asked >= COUNT and not unfit(problem) else 0

    def schedule(self, regularisers: Sequence[Regulariser], iterations: int) -> Schedule:
        """Step sizes, and the prior's weight over the search."""
        preset = PRESETS[self.preset]
        rates = preset.schedule(self.resolved().learning_rate, iterations)
        return Schedule(rates, factors=annealed(regularisers, preset.anneal, iterations))

    def regularisers(self, release: Release, knowledge: Knowledge) -> tuple[list[Regulariser], str]:
        """What the search believes of images, and a sentence where it has to do without the prior."""
        if len(knowledge.image_shape) == 1:  # the features of a table have no neighbours
            return [], "Rows of a table have no neighbouring pixels, so they were searched without a prior."
        own, note = self.resolved(), ""
        tv = own.tv
        found: list[Regulariser] = [*prior_term(release, knowledge, own.prior_weight, self.adaptive)]
        if own.prior_weight and not found:
            tv, note = WITHOUT_STATISTICS if self.tv is None else tv, UNINFORMED
        if tv:
            found.append(TotalVariation(tv))
        return found, note

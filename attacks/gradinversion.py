"""GradInversion (Yin et al., CVPR 2021): gradient matching, fidelity, and seeds held together as a group."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, Self

import torch
from torch import Tensor

from attacks import labels as label_rules
from attacks import parameters as shared
from attacks.adaptation import adapt, adapts
from attacks.base import Attack, Task, attack, channel_statistics, to_images
from attacks.batch_norm import statistics_term
from attacks.engine import Schedule, search, warm_cosine
from attacks.engine.local_steps import path_of, with_path
from attacks.engine.problem import Problem
from attacks.engine.variables import Frequencies, Pixels
from attacks.features import network_features
from attacks.gaussian_prior import UNINFORMED, GaussianPrior, annealed, prior_term, suits, weighed
from attacks.gradinversion_presets import PRESETS, PUBLIC, WITH_PRIOR, Preset
from attacks.held import compared, held, untold
from attacks.objectives import Cosine, LayerL2, Objective, Scaled
from attacks.registration import consensus, lazy
from attacks.regularisers import (
    L2,
    BatchNormStatistics,
    DiagonalVariation,
    GroupConsistency,
    ImageNorm,
    Regulariser,
    TotalVariation,
)
from attacks.softened import Softened, may_not_pay, pays
from dpbench.protocol import InputError, Knowledge, Reconstruction, Release, parameter

Terms = Literal["gradient", "fidelity", "lazy", "registered"]
"""What is optimised, each term with all before it: the rows of the paper's ablation (table 2)."""
GROUP = ("lazy", "registered")


GROUP_FROM = 0.25
"""Share of the iterations after which the group term sets in: 5,000 of the paper's 20,000."""
LEFT_ASIDE = "Beside the Gaussian prior the running statistics at batch norm were left aside."


@attack("gradinversion")
class GradInversion(Attack):
    """Several seeds at once; returns the one that explains the release and the statistics best.

    Attributes:
        preset: a key of `PRESETS`.
        restarts: the seeds of the group.
        adaptive: as `adaptation.adapt`.
        engine: backend of the search.
    """

    local_steps = True

    preset: shared.PresetName = shared.preset()
    terms: Terms = parameter(default="registered", help="what is optimised, each term with all before it")
    matching: Literal["layer-l2", "cosine"] | None = parameter(
        default=None,
        help="how gradients are compared: tensor by tensor or by their angle; the preset's unless given",
    )
    label_rule: label_rules.Rule = shared.label_rule("minimum")
    iterations: int | None = shared.iterations(None)
    restarts: int | None = shared.restarts(None)
    adaptive: bool = shared.adaptive()
    update: shared.Update = shared.update()
    engine: str = "auto"

    def __post_init__(self) -> None:
        """Refuse a group of one."""
        super().__post_init__()
        if self.terms in GROUP and self.restarts == 1:
            raise InputError(
                f"`terms` {self.terms} needs several seeds to agree: use `restarts` 2 or more, or `terms` "
                "fidelity."
            )

    def run(self, task: Task) -> Reconstruction:
        """See `Attack.__call__`; `note` as that of Inverting Gradients."""
        release, knowledge, preset = task.release, task.knowledge, self.weights(task.knowledge)
        resolved = self.resolved()
        iterations, restarts = resolved.iterations, resolved.restarts
        labels, source = label_rules.given_or_inferred(release, knowledge, self.label_rule, task.tell)
        if preset.held:
            knowledge = held(task, labels)
        shape = (release.batch_size, *knowledge.image_shape)
        starts = [preset.start * task.noise(*shape) for _ in range(restarts)]
        group = GroupConsistency(preset.group, torch.zeros_like(starts[0]), preset.relative)
        regularisers = [] if self.terms == "gradient" else self.fidelity(preset, release, knowledge)
        grouped = self.terms in GROUP
        begin = int(GROUP_FROM * iterations)
        if grouped:
            regularisers = [*regularisers, group]
        factors = annealed(regularisers, preset.anneal, iterations)
        if grouped:
            factors[:begin, -1] = 0
        path = path_of(release, self.update)
        problem = Problem(
            knowledge,
            release.gradients,
            self.objective(preset, release, knowledge, regularisers),
            regularisers,
            searched(preset, knowledge),
            limit=preset.limit if knowledge.statistics else None,
            path=path,
        )
        outcome = search(
            problem,
            [with_path([start], path) for start in starts],
            labels,
            Schedule(warm_cosine(preset.learning_rate, iterations), preset.langevin, factors),
            engine=self.engine,
            seed=int(torch.randint(2**31, (), generator=task.generator)),
            progress=task.progress,
            refresh=self.refresh(problem, group, knowledge, begin) if grouped else None,
            every=max(1, int(preset.group_every * iterations)),
        )
        # The group term sets in late, and objectives from before and after that do not compare. So every seed
        # is scored at its last point, by the objective without the group term.
        ends = [found.last for found in outcome.found]
        without_group = torch.ones(len(problem.regularisers), device=task.device)
        if grouped:
            without_group[-1] = 0
        scores = [
            problem.gradient([v.detach().requires_grad_() for v in end], labels, without_group)[:2]
            for end in ends
        ]
        if not any(bool(total.isfinite()) for _, total in scores):
            raise FloatingPointError(
                "The objective was NaN or infinite where every seed ended; smaller weights or a smaller "
                "`learning_rate` may help."
            )
        best = min(range(restarts), key=lambda i: float(scores[i][1].nan_to_num(torch.inf)))
        images, start = (
            to_images(problem.variables(found), knowledge) for found in (ends[best], [starts[best]])
        )
        answer = outcome.reconstruction(task, best, images, start, labels, source, float(scores[best][0]))
        return replace(answer, note=self.note(release, knowledge))

    @classmethod
    def adapts(cls, stages: Sequence[str], given: Mapping[str, Any]) -> bool:
        """As `adaptation.adapt` does with the objective of these hyper-parameters.

        And where noise or zeros decide what the prior weighs, and whatever may leave errors in small entries.
        """
        preset = WITH_PRIOR if (given.get("preset") or "tuned") == "tuned" else PRESETS["paper"]
        by_layer = (given.get("matching") or preset.matching) == "layer-l2"
        softened = preset.softened and not by_layer and may_not_pay(stages)
        return (
            (preset.prior > 0 and weighed(stages))
            or softened
            or adapts(stages, LayerL2 if by_layer else Cosine)
        )

    def weights(self, knowledge: Knowledge) -> Preset:
        """Those of the preset; of `tuned` beside a prior, where there can be one."""
        if self.preset != "tuned" or self.terms == "gradient" or not suits(knowledge):
            return PRESETS[self.preset]
        return WITH_PRIOR if knowledge.bn_stats in ("exact", "recovered") else PUBLIC

    def wants(self) -> frozenset[str]:
        """See `Attack.wants`; the prior is made of statistics."""
        believes = self.preset == "tuned" and self.terms != "gradient"
        return super().wants() | ({"image_statistics"} if believes else set())

    def resolved(self) -> Self:
        """With the preset's values for None."""
        chosen, own = PRESETS[self.preset], ("matching", "iterations", "restarts")
        return replace(self, **{name: getattr(chosen, name) for name in own if getattr(self, name) is None})

    def fidelity(self, preset: Preset, release: Release, knowledge: Knowledge) -> list[Regulariser]:
        """R_fidelity (eq. 9): what is believed of images, and the batch-norm term where there are statistics.

        Total variation and l2, or the Gaussian prior in their place.
        """
        images: list[Regulariser] = [*prior_term(release, knowledge, preset.prior, self.adaptive)]
        if not images and preset.relative:
            images = [TotalVariation(preset.tv), L2(preset.l2)]
        elif not images:
            images = [DiagonalVariation(preset.tv), ImageNorm(preset.l2)]
        return images + statistics_term(knowledge, preset.bn, preset.relative, self.name)

    def objective(
        self, preset: Preset, release: Release, knowledge: Knowledge, beside: Sequence[Regulariser]
    ) -> Objective:
        """The gradient distance, with regularisers beside it."""
        if self.resolved().matching == "layer-l2":
            found: Objective = LayerL2(preset.gradient, preset.relative)
        else:
            found = Scaled(Cosine(), preset.gradient)
            told = any(isinstance(each, GaussianPrior | BatchNormStatistics) for each in beside)
            if preset.softened and told and (pays(release) or not self.adaptive):
                found = compared(Softened(found), release, knowledge)
        return adapt(found, release) if self.adaptive else found

    def note(self, release: Release, knowledge: Knowledge) -> str:
        """What `tuned` had to do without, or left aside."""
        if self.preset != "tuned":
            return ""
        missing = self.terms != "gradient" and not suits(knowledge)
        aside = self.weights(knowledge) is PUBLIC and knowledge.statistics
        said = (UNINFORMED if missing else "", LEFT_ASIDE if aside else "", untold(release, knowledge))
        return " ".join(filter(None, said))

    def refresh(
        self, problem: Problem, group: GroupConsistency, knowledge: Knowledge, begin: int
    ) -> Callable[[int, list[list[Tensor]]], None]:
        """The function that updates the consensus in `group` from iteration `begin` on."""
        features = (
            network_features(knowledge.model, knowledge.image_shape) if self.terms == "registered" else None
        )

        def agree(done: int, points: list[list[Tensor]]) -> None:
            if done < begin:
                return
            images = torch.stack([to_images(problem.variables(point), knowledge) for point in points])
            agreed = lazy(images) if features is None else consensus(images, features, seed=done)
            mean, std = channel_statistics(knowledge, agreed)
            group.consensus.copy_((agreed - mean) / std)

        return agree


def searched(preset: Preset, knowledge: Knowledge) -> Pixels | Frequencies:
    """The variables of the search."""
    if preset.frequencies:
        return Frequencies(knowledge.mean, knowledge.std, *knowledge.image_shape[1:])
    return Pixels(knowledge.mean, knowledge.std)

"""GradInversion (Yin et al., CVPR 2021): gradient matching, fidelity, and seeds held together as a group."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
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
from attacks.objectives import Cosine, LayerL2, Objective, Scaled
from attacks.registration import consensus, lazy
from attacks.regularisers import (
    L2,
    DiagonalVariation,
    GroupConsistency,
    ImageNorm,
    Regulariser,
    TotalVariation,
)
from dpbench.protocol import InputError, Knowledge, Reconstruction, parameter

Terms = Literal["gradient", "fidelity", "lazy", "registered"]
"""What is optimised, each term with all before it: the rows of the paper's ablation (table 2)."""
GROUP = ("lazy", "registered")


@dataclass(frozen=True)
class Preset:
    """Weights and steps.

    Attributes:
        relative: use terms without a scale of their own, so that their weights suit any network.
        matching: by default.
        gradient: weight of the gradient distance.
        limit: largest ratio of the gradient distance's pull at an image to the regularisers', where there are
            batch-norm statistics (see `Problem`); None: no limit.
        tv: of total variation.
        l2: of the pixels' norm.
        bn: of the batch-norm statistics.
        group: of the distance to the consensus.
        langevin: noise per step, in units of the step (a_n).
        iterations: by default.
        restarts: seeds in the group, by default.
        learning_rate: highest step, in units of a channel's standard deviation.
        group_every: share of the iterations after which the consensus is computed again.
        frequencies: search cosine coefficients instead of pixels.
        start: standard deviation of the search's start, in the same units.
    """

    relative: bool
    matching: str
    gradient: float
    limit: float | None
    tv: float
    l2: float
    bn: float
    group: float
    langevin: float
    iterations: int
    restarts: int
    learning_rate: float
    group_every: float
    frequencies: bool
    start: float


PRESETS = {
    "paper": Preset(
        relative=False,
        matching="layer-l2",
        gradient=1e-3,
        limit=None,
        tv=1e-4,
        l2=1e-6,
        bn=0.1,
        group=0.01,
        langevin=0.2,
        iterations=20_000,
        restarts=8,
        learning_rate=0.1,
        group_every=0.005,
        frequencies=False,
        start=1.0,
    ),
    "tuned": Preset(
        relative=True,
        matching="cosine",
        gradient=1.0,
        limit=2.0,
        tv=0.05,
        l2=0.0,
        bn=0.5,
        group=0.1,
        langevin=0.0,
        iterations=1_500,
        restarts=4,
        learning_rate=0.2,
        group_every=0.05,
        frequencies=True,
        start=0.3,
    ),
}
"""`paper`: the paper's values, from a secondary source. `tuned`: see docs/gradinversion.md."""
GROUP_FROM = 0.25
"""Share of the iterations after which the group term sets in: 5,000 of the paper's 20,000."""


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
        """See `Attack.__call__`."""
        release, knowledge, preset = task.release, task.knowledge, PRESETS[self.preset]
        resolved = self.resolved()
        iterations, restarts = resolved.iterations, resolved.restarts
        labels, source = label_rules.given_or_inferred(release, knowledge, self.label_rule, task.tell)
        shape = (release.batch_size, *knowledge.image_shape)
        starts = [preset.start * task.noise(*shape) for _ in range(restarts)]
        group = GroupConsistency(preset.group, torch.zeros_like(starts[0]), preset.relative)
        regularisers = self.fidelity(preset, knowledge) if self.terms != "gradient" else []
        grouped = self.terms in GROUP
        begin = int(GROUP_FROM * iterations)
        factors = torch.ones(iterations, len(regularisers) + grouped)
        if grouped:
            factors[:begin, -1] = 0
        objective, path = self.objective(preset), path_of(release, self.update)
        problem = Problem(
            knowledge,
            release.gradients,
            adapt(objective, release) if self.adaptive else objective,
            [*regularisers, group] if grouped else regularisers,
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
        return outcome.reconstruction(task, best, images, start, labels, source, float(scores[best][0]))

    @classmethod
    def adapts(cls, stages: Sequence[str], given: Mapping[str, Any]) -> bool:
        """As `adaptation.adapt` does with the objective of these hyper-parameters."""
        matching = given.get("matching") or PRESETS[given.get("preset") or "tuned"].matching
        return adapts(stages, LayerL2 if matching == "layer-l2" else Cosine)

    def resolved(self) -> Self:
        """With the preset's values for None."""
        chosen, own = PRESETS[self.preset], ("matching", "iterations", "restarts")
        return replace(self, **{name: getattr(chosen, name) for name in own if getattr(self, name) is None})

    def fidelity(self, preset: Preset, knowledge: Knowledge) -> list[Regulariser]:
        """R_fidelity (eq. 9): total variation, l2, and the batch-norm term where there are statistics."""
        if preset.relative:
            regularisers: list[Regulariser] = [TotalVariation(preset.tv), L2(preset.l2)]
        else:
            regularisers = [DiagonalVariation(preset.tv), ImageNorm(preset.l2)]
        return regularisers + statistics_term(knowledge, preset.bn, preset.relative, self.name)

    def objective(self, preset: Preset) -> Objective:
        """The gradient distance."""
        if self.resolved().matching == "layer-l2":
            return LayerL2(preset.gradient, preset.relative)
        return Scaled(Cosine(), preset.gradient)

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

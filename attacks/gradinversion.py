"""GradInversion (Yin et al., CVPR 2021): gradient matching, fidelity, and seeds held together as a group."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from attacks import labels as label_rules
from attacks.base import Attack, Task, attack, channel_statistics, positive, to_images
from attacks.engine import Schedule, search, warm_cosine
from attacks.engine.problem import Problem
from attacks.engine.variables import Frequencies, Pixels
from attacks.features import network_features
from attacks.objectives import Cosine, LayerL2, Objective, Scaled, adapt
from attacks.priors import (
    L2,
    BatchNormStatistics,
    DiagonalVariation,
    GroupConsistency,
    ImageNorm,
    Prior,
    TotalVariation,
)
from attacks.registration import consensus, lazy
from dpbench.protocol import InputError, Knowledge, Reconstruction

TERMS = ("gradient", "fidelity", "lazy", "registered")
"""What is optimised, each with all before it: the rows of the paper's ablation (table 2)."""
GROUP = ("lazy", "registered")
MATCHING = ("layer-l2", "cosine")


@dataclass(frozen=True)
class Preset:
    """Weights and steps.

    Attributes:
        relative: terms without a scale of their own, whose weights carry from one network to another.
        gradient: weight of the gradient distance.
        limit: how much harder than the priors the gradient distance may pull at an image, where there are
            batch-norm statistics; None: no limit.
        tv: of total variation.
        l2: of the pixels' norm.
        bn: of the batch-norm statistics.
        group: of the distance to the consensus.
        langevin: noise per step, in units of the step (a_n).
        iterations: by default.
        restarts: seeds in the group, by default.
        learning_rate: highest step, in units of a channel's standard deviation.
        group_every: share of the iterations after which the consensus is taken anew.
        frequencies: search cosine coefficients instead of pixels.
        start: standard deviation of what the search starts from, likewise.
    """

    relative: bool
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
"""Share of the iterations after which the group term comes in: 5,000 of the paper's 20,000."""


@attack("gradinversion")
class GradInversion(Attack):
    """Several seeds at once; hands back the one that explains release and statistics best.

    Args:
        preset: one of `PRESETS`.
        terms: one of `TERMS`.
        matching: `layer-l2` as in the paper, or `cosine`.
        label_rule: how labels are restored where they are not known; one of `labels.RULES`.
        iterations: per seed; None is the preset's.
        restarts: seeds in the group; None is the preset's.
        adaptive: match on the support of a pruned release.
        engine: backend of the search.
    """

    def __init__(
        self,
        *,
        preset: str = "tuned",
        terms: str = "registered",
        matching: str | None = None,
        label_rule: str = "minimum",
        iterations: int | None = None,
        restarts: int | None = None,
        adaptive: bool = True,
        engine: str = "auto",
    ) -> None:
        for value, known, what in ((preset, PRESETS, "preset"), (terms, TERMS, "terms")):
            if value not in known:
                raise InputError(f"Unknown {what} {value!r}; choose one of {', '.join(known)}.")
        chosen = PRESETS[preset]
        self.preset, self.terms, self.label_rule = preset, terms, label_rule
        self.matching = matching or ("cosine" if chosen.relative else "layer-l2")
        if self.matching not in MATCHING:
            raise InputError(f"Unknown matching {matching!r}; choose one of {', '.join(MATCHING)}.")
        self.iterations = chosen.iterations if iterations is None else iterations
        self.restarts = chosen.restarts if restarts is None else restarts
        positive(iterations=self.iterations, restarts=self.restarts)
        if self.restarts == 1 and terms in GROUP:
            raise InputError(
                f"The {terms} group of gradinversion needs seeds to agree: use --restarts 2 or more, or "
                "--terms fidelity."
            )
        self.adaptive, self.engine = adaptive, engine

    def run(self, task: Task) -> Reconstruction:
        """See `Attack.__call__`."""
        release, knowledge, preset = task.release, task.knowledge, PRESETS[self.preset]
        labels, source = label_rules.given_or_inferred(release, knowledge, self.label_rule)
        shape = (release.batch_size, *knowledge.image_shape)
        starts = [preset.start * task.noise(*shape) for _ in range(self.restarts)]
        group = GroupConsistency(preset.group, torch.zeros_like(starts[0]), preset.relative)
        priors = fidelity(preset, knowledge) if self.terms != "gradient" else []
        grouped = self.terms in GROUP
        begin = int(GROUP_FROM * self.iterations)
        factors = torch.ones(self.iterations, len(priors) + grouped)
        if grouped:
            factors[:begin, -1] = 0
        objective = self.objective(preset)
        problem = Problem(
            knowledge,
            release.gradients,
            adapt(objective, release) if self.adaptive else objective,
            [*priors, group] if grouped else priors,
            searched(preset, knowledge),
            limit=preset.limit if knowledge.statistics else None,
        )
        outcome = search(
            problem,
            [[start] for start in starts],
            labels,
            Schedule(warm_cosine(preset.learning_rate, self.iterations), preset.langevin, factors),
            engine=self.engine,
            seed=int(torch.randint(2**31, (), generator=task.generator)),
            progress=task.progress,
            refresh=self.refresh(problem, group, knowledge, begin) if grouped else None,
            every=max(1, int(preset.group_every * self.iterations)),
        )
        # The group term comes in late, so objectives from before and after do not compare: every seed is
        # judged where it ended, by what it was searched for less the group.
        ends = [found.last for found in outcome.found]
        judge = torch.ones(len(problem.priors), device=task.device)
        if grouped:
            judge[-1] = 0
        scores = [
            problem.gradient([v.detach().requires_grad_() for v in end], labels, judge)[:2] for end in ends
        ]
        best = min(range(self.restarts), key=lambda i: float(scores[i][1].nan_to_num(torch.inf)))
        images, start = (
            to_images(problem.variables(found), knowledge) for found in (ends[best], [starts[best]])
        )
        return outcome.reconstruction(task, best, images, start, labels, source, float(scores[best][0]))

    def objective(self, preset: Preset) -> Objective:
        """The gradient distance."""
        if self.matching == "layer-l2":
            return LayerL2(preset.gradient, preset.relative)
        return Scaled(Cosine(), preset.gradient)

    def refresh(
        self, problem: Problem, group: GroupConsistency, knowledge: Knowledge, begin: int
    ) -> Callable[[int, list[list[Tensor]]], None]:
        """What puts the seeds' consensus into `group`, from iteration `begin` on."""
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
    """What the search moves."""
    if preset.frequencies:
        return Frequencies(knowledge.mean, knowledge.std, *knowledge.image_shape[1:])
    return Pixels(knowledge.mean, knowledge.std)


def fidelity(preset: Preset, knowledge: Knowledge) -> list[Prior]:
    """R_fidelity (eq. 9): total variation, l2, and batch-norm statistics where the attacker has them."""
    if preset.relative:
        priors: list[Prior] = [TotalVariation(preset.tv), L2(preset.l2)]
    else:
        priors = [DiagonalVariation(preset.tv), ImageNorm(preset.l2)]
    if knowledge.statistics:
        priors.append(BatchNormStatistics(preset.bn, knowledge.statistics, preset.relative))
    return priors

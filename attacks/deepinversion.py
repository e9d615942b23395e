"""DeepInversion (Yin et al., CVPR 2020): labels and batch-norm statistics alone, no gradient.

GradInversion's baseline, and a floor: what it finds was not in the released gradient.
"""

from __future__ import annotations

import math

from attacks import parameters as shared
from attacks.base import Attack, Task, attack, to_images
from attacks.batch_norm import statistics_term
from attacks.engine import Schedule, search, warm_cosine
from attacks.engine.problem import Problem
from attacks.engine.variables import Frequencies
from attacks.regularisers import L2, TotalVariation
from dpbench.protocol import InputError, Reconstruction, parameter

START = 0.3
"""Standard deviation of the coefficients at the start of the search."""


@attack("deepinversion")
class DeepInversion(Attack):
    """Images that the victim classifies as the labels say, with the batch-norm statistics it was trained on.

    Attributes:
        bn: relative to the statistics' own size, see `BatchNormStatistics`.
        engine: backend of the search.
    """

    needs = frozenset({"labels"})
    noise_floor = False
    local_steps = True

    iterations: int = shared.iterations(1500)
    restarts: int = shared.restarts(1)
    learning_rate: float = shared.learning_rate(0.2)
    label_weight: float = parameter(default=0.1, help="weight of the victim's loss", at_least=0)
    tv: float = shared.tv(0.05)
    l2: float = shared.l2(0.001)
    bn: float = shared.bn(1.0)
    engine: str = "auto"

    def run(self, task: Task) -> Reconstruction:
        """See `Attack.__call__`; only the batch size of the release is used.

        Raises:
            InputError: where the attacker does not know the labels.
        """
        knowledge = task.knowledge
        if knowledge.labels is None:
            raise InputError("deepinversion reads no gradient and needs the labels: use `labels` known.")
        regularisers = [TotalVariation(self.tv), L2(self.l2)]
        regularisers += statistics_term(knowledge, self.bn, relative=True, attack=self.name)
        # GradInversion's variables and steps: a floor has to be searched for as well as what it is a floor of
        variables = Frequencies(knowledge.mean, knowledge.std, *knowledge.image_shape[1:])
        problem = Problem(knowledge, (), None, regularisers, variables, self.label_weight)
        shape = (task.release.batch_size, *knowledge.image_shape)
        starts = [START * task.noise(*shape) for _ in range(self.restarts)]
        outcome = search(
            problem,
            [[start] for start in starts],
            knowledge.labels,
            Schedule(warm_cosine(self.learning_rate, self.iterations)),
            engine=self.engine,
            progress=task.progress,
        )
        found = outcome.found[outcome.best]
        images, start = (
            to_images(variables(point), knowledge) for point in (found.variables, [starts[outcome.best]])
        )
        return outcome.reconstruction(
            task, outcome.best, images, start, knowledge.labels, "known", distance=math.nan
        )

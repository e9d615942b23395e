"""DeepInversion (Yin et al., CVPR 2020): labels and batch-norm statistics alone, no gradient.

GradInversion's baseline and an honest floor: what it shows, the victim would show of anybody's images.
"""

from __future__ import annotations

import math

from attacks.base import Attack, Task, attack, positive, to_images
from attacks.engine import Schedule, search, warm_cosine
from attacks.engine.problem import Problem
from attacks.engine.variables import Frequencies
from attacks.priors import L2, BatchNormStatistics, TotalVariation
from dpbench.protocol import InputError, Reconstruction

START = 0.3
"""Standard deviation of the coefficients that the search starts from."""


@attack("deepinversion")
class DeepInversion(Attack):
    """Images that the victim gives the labels, with the batch-norm statistics it was trained on.

    Args:
        iterations: per restart.
        restarts: independent random starts; the one with the lowest objective is handed back.
        learning_rate: highest step of Adam, in units of a channel's standard deviation.
        label: weight of the victim's loss.
        tv: weight of total variation.
        l2: weight of the mean squared pixel.
        bn: weight of the batch-norm statistics, relative.
        engine: backend of the search.
    """

    noise_floor = False

    def __init__(
        self,
        *,
        iterations: int = 1500,
        restarts: int = 1,
        learning_rate: float = 0.2,
        label: float = 0.1,
        tv: float = 0.05,
        l2: float = 0.001,
        bn: float = 1.0,
        engine: str = "auto",
    ) -> None:
        positive(iterations=iterations, restarts=restarts)
        self.iterations, self.restarts, self.learning_rate = iterations, restarts, learning_rate
        self.label, self.tv, self.l2, self.bn, self.engine = label, tv, l2, bn, engine

    def run(self, task: Task) -> Reconstruction:
        """See `Attack.__call__`; of the release only the size of the batch is looked at.

        Raises:
            InputError: where the attacker does not know the labels.
        """
        knowledge = task.knowledge
        if knowledge.labels is None:
            raise InputError("deepinversion reads no gradient and has to be told the labels: --labels known.")
        priors = [TotalVariation(self.tv), L2(self.l2)]
        if knowledge.statistics:
            priors.append(BatchNormStatistics(self.bn, knowledge.statistics, relative=True))
        # GradInversion's steps: as a floor it has to be searched as well as what it is a floor of
        variables = Frequencies(knowledge.mean, knowledge.std, *knowledge.image_shape[1:])
        problem = Problem(knowledge, (), None, priors, variables, self.label)
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

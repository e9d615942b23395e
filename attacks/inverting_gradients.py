"""Inverting Gradients (Geiping et al., NeurIPS 2020): cosine similarity, total variation, signed Adam."""

from __future__ import annotations

from attacks import labels as label_rules
from attacks import parameters as shared
from attacks.base import Attack, Task, attack, to_images, to_pixels
from attacks.engine import Schedule, search, step_decay
from attacks.engine.problem import Problem
from attacks.objectives import Cosine, adapt
from attacks.regularisers import TotalVariation
from dpbench.protocol import Reconstruction


@attack("inverting-gradients")
class InvertingGradients(Attack):
    """Matches the gradient's direction; the step size falls tenfold at 3/8, 5/8 and 7/8 of the iterations.

    Attributes:
        adaptive: match only the entries that pruning kept.
        engine: backend of the search.
    """

    iterations: int = shared.iterations(1500)
    restarts: int = shared.restarts(1)
    learning_rate: float = shared.learning_rate(0.1)
    tv: float = shared.tv(0.03)
    adaptive: bool = shared.adaptive()
    engine: str = "auto"

    def run(self, task: Task) -> Reconstruction:
        """See `Attack.__call__`."""
        release, knowledge = task.release, task.knowledge
        labels, source = label_rules.given_or_inferred(release, knowledge)
        objective = adapt(Cosine(), release) if self.adaptive else Cosine()
        problem = Problem(knowledge, release.gradients, objective, [TotalVariation(self.tv)])
        starts = [task.noise(release.batch_size, *knowledge.image_shape) for _ in range(self.restarts)]
        if task.guess is not None:
            starts[0] = to_pixels(task.guess, knowledge)
        outcome = search(
            problem,
            [[start] for start in starts],
            labels,
            Schedule(step_decay(self.learning_rate, self.iterations)),
            engine=self.engine,
            signed=True,
            progress=task.progress,
        )
        found = outcome.found[outcome.best]
        images, start = (to_images(z, knowledge) for z in (found.variables[0], starts[outcome.best]))
        return outcome.reconstruction(task, outcome.best, images, start, labels, source)

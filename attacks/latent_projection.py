"""Latent Projection: the image is searched among those that a public generator can make.

GradInversion's baseline of that name (Yin et al. 2021, table 4), with BigGAN; here with any generator.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from attacks import labels as label_rules
from attacks.base import Attack, Task, attack, positive
from attacks.engine import Schedule, search, warm_cosine
from attacks.engine.problem import Problem
from attacks.objectives import Cosine, adapt
from dpbench.protocol import InputError, Knowledge, Reconstruction

CERTAIN = 4.0
"""Logit that a sample's own class starts with, the others being 0: not so sure that it cannot move."""


class Latent(nn.Module):
    """Normalised pixels from a latent vector and class logits.

    Args:
        generator: `z [B, latent_dim], y [B, K] -> images [B, C, H, W] in [0, 1]`.
        knowledge: for the channel statistics.
    """

    def __init__(self, generator: nn.Module, knowledge: Knowledge) -> None:
        super().__init__()
        self.generator = generator
        for name, values in (("mean", knowledge.mean), ("std", knowledge.std)):
            self.register_buffer(name, torch.tensor(values)[:, None, None])

    def images(self, variables: Sequence[Tensor]) -> Tensor:
        """Images [B, C, H, W] in [0, 1] of latent vectors [B, latent_dim] and class logits [B, K]."""
        return self.generator(variables[0], variables[1].softmax(1))

    def forward(self, variables: Sequence[Tensor]) -> Tensor:
        """The same, normalised."""
        return (self.images(variables) - self.mean) / self.std

    def project(self, variables: Sequence[Tensor]) -> list[Tensor]:
        """`variables`: every latent vector makes an image."""
        return list(variables)


@attack("latent-projection")
class LatentProjection(Attack):
    """Cosine matching over the generator's latent space and class vector.

    Args:
        iterations: per restart.
        restarts: independent random starts; the one with the lowest objective is handed back.
        learning_rate: highest step of Adam in latent space.
        adaptive: match on the support of a pruned release.
        engine: backend of the search.
    """

    needs = frozenset({"generator"})

    def __init__(
        self,
        *,
        iterations: int = 400,
        restarts: int = 4,
        learning_rate: float = 0.1,
        adaptive: bool = True,
        engine: str = "auto",
    ) -> None:
        positive(iterations=iterations, restarts=restarts)
        self.iterations, self.restarts, self.learning_rate = iterations, restarts, learning_rate
        self.adaptive, self.engine = adaptive, engine

    def run(self, task: Task) -> Reconstruction:
        """See `Attack.__call__`.

        Raises:
            InputError: where there is no generator, or it makes other images than the victim takes.
        """
        release, knowledge, generator = task.release, task.knowledge, task.knowledge.generator
        if generator is None:
            raise InputError("latent-projection needs a generator: give one with --generator.")
        if tuple(generator.image_shape) != knowledge.image_shape:
            raise InputError(
                f"The generator makes images of shape {tuple(generator.image_shape)} and the victim takes "
                f"{knowledge.image_shape}: give another --generator or --image-size."
            )
        labels, source = label_rules.given_or_inferred(release, knowledge)
        if int(labels.max()) >= generator.num_classes:
            raise InputError(
                f"The generator knows {generator.num_classes} classes, and label {int(labels.max())} is none "
                "of them: give another --generator."
            )
        latent = Latent(generator, knowledge)
        objective = adapt(Cosine(), release) if self.adaptive else Cosine()
        problem = Problem(knowledge, release.gradients, objective, variables=latent)
        classes = CERTAIN * nn.functional.one_hot(labels, generator.num_classes).float()
        batch = release.batch_size
        starts = [[task.noise(batch, generator.latent_dim), classes] for _ in range(self.restarts)]
        outcome = search(
            problem,
            starts,
            labels,
            Schedule(warm_cosine(self.learning_rate, self.iterations)),
            engine=self.engine,
            progress=task.progress,
        )
        best, found = outcome.best, outcome.found[outcome.best]
        with torch.no_grad():
            images, start = (latent.images(v).clamp(0, 1) for v in (found.variables, starts[best]))
        return outcome.reconstruction(task, best, images, start, labels, source)

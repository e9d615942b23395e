"""Latent Projection: a search among the images that a public generator can make.

A baseline in the GradInversion paper (Yin et al. 2021, table 4), there with BigGAN, here with any generator.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from attacks import labels as label_rules
from attacks import parameters as shared
from attacks.adaptation import adapt
from attacks.base import Attack, Task, attack
from attacks.engine import Schedule, search, warm_cosine
from attacks.engine.local_steps import path_of, with_path
from attacks.engine.problem import Problem
from attacks.objectives import Cosine
from dpbench.protocol import InputError, Knowledge, Reconstruction

CERTAIN = 4.0
"""Logit of a sample's own class at the start, the others being 0: low enough for the search to move it."""


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

    Attributes:
        adaptive: as `adaptation.adapt`.
        engine: backend of the search.
    """

    needs = frozenset({"image_generator"})

    matches = Cosine
    local_steps = True

    iterations: int = shared.iterations(400)
    restarts: int = shared.restarts(4)
    learning_rate: float = shared.learning_rate(0.1)
    adaptive: bool = shared.adaptive()
    update: shared.Update = shared.update()
    engine: str = "auto"

    def run(self, task: Task) -> Reconstruction:
        """See `Attack.__call__`.

        Raises:
            InputError: where there is no generator, or its images or classes do not fit the victim's.
        """
        release, knowledge, generator = task.release, task.knowledge, task.knowledge.image_generator
        if generator is None:
            raise InputError("latent-projection needs a generator: give one as `generator`.")
        if tuple(generator.image_shape) != knowledge.image_shape:
            raise InputError(
                f"The generator makes images of shape {tuple(generator.image_shape)} and the victim takes "
                f"{knowledge.image_shape}: give another `generator` or `image_size`."
            )
        labels, source = label_rules.given_or_inferred(release, knowledge, tell=task.tell)
        if int(labels.max()) >= generator.num_classes:
            raise InputError(
                f"The generator knows {generator.num_classes} classes, and label {int(labels.max())} is "
                "not one of them: give another `generator`."
            )
        latent = Latent(generator, knowledge)
        objective = adapt(Cosine(), release) if self.adaptive else Cosine()
        path = path_of(release, self.update)
        problem = Problem(knowledge, release.gradients, objective, variables=latent, path=path)
        classes = CERTAIN * nn.functional.one_hot(labels, generator.num_classes).float()
        batch = release.batch_size
        starts = [[task.noise(batch, generator.latent_dim), classes] for _ in range(self.restarts)]
        outcome = search(
            problem,
            [with_path(start, path) for start in starts],
            labels,
            Schedule(warm_cosine(self.learning_rate, self.iterations)),
            engine=self.engine,
            progress=task.progress,
        )
        best, found = outcome.best, outcome.found[outcome.best]
        with torch.no_grad():
            images, start = (latent.images(v).clamp(0, 1) for v in (found.variables, starts[best]))
        return outcome.reconstruction(task, best, images, start, labels, source)

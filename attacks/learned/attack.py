"""Learning to invert: a network that was trained under the very defence tells the image from its gradient."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from attacks import labels as label_rules
from attacks.base import Attack, Task, attack
from attacks.learned.inversion import FEWEST, Inversion, learnt
from attacks.learned.kept import kept, name_of
from attacks.linear_estimate import check_public_images
from dpbench.protocol import InputError, Knowledge, Reconstruction, parameter


@attack("learned-inversion")
class LearnedInversion(Attack):
    """Learns the way back from releases of public images, simulated under the defence (Wu et al. 2023).

    One image at a time. It trains once for a victim and a defence and is kept in the cache folder.
    """

    needs = frozenset({"public_images"})
    simulates = True
    most_images = 1

    training_images: int = parameter(
        10_000, "public images that learned-inversion trains on, of all labels together", at_least=FEWEST
    )
    training_steps: int = parameter(
        1000, "steps of Adam in the training of learned-inversion's network", at_least=1, below=10**7
    )

    def run(self, task: Task) -> Reconstruction:
        """See `Attack.__call__`; of several releases only the mean matters.

        Raises:
            InputError: for a defence that is not registered, or too few public images of the label.
        """
        check_public_images(task.knowledge, self.name)
        labels, source = label_rules.given_or_inferred(task.release, task.knowledge, tell=task.tell)
        images, classes = self.public(task.knowledge, task.device)
        report = lambda done, value: task.progress(done, self.training_steps, value)  # noqa: E731
        task.progress(0, self.training_steps, math.nan)

        def train() -> Inversion:
            return learnt(task.release, task.knowledge, images, classes, self.training_steps, report)

        name = name_of(task.release, task.knowledge, images, classes, self.training_steps)
        inversion = kept(name, task.release, train, task.device)
        with torch.no_grad():
            found, mean = inversion(task.release.gradients, int(labels[0]))
        task.progress(self.training_steps, self.training_steps, math.nan)
        return Reconstruction(
            images=found[None].clamp(0, 1),
            labels=labels,
            label_source=source,
            gradient_distance=math.nan,
            start=mean[None].clamp(0, 1),
            iterations=self.training_steps,
            seconds=task.seconds(),
            engine="none",
        )

    def public(self, knowledge: Knowledge, device: torch.device) -> tuple[Tensor, Tensor]:
        """The images it trains on and their labels: equally many of each label, as far as there are.

        Raises:
            InputError: where no label has enough of them.
        """
        each = self.training_images // knowledge.num_classes
        found = {label: knowledge.public_images.of(label, each) for label in range(knowledge.num_classes)}
        found = {label: images for label, images in found.items() if len(images) >= FEWEST}
        if not found:
            raise InputError(
                f"{self.name} needs {FEWEST} public images of a label: give more of them, or raise "
                "`training_images`."
            )
        owners = [torch.full((len(images),), label) for label, images in found.items()]
        return torch.cat(list(found.values())).to(device), torch.cat(owners).to(device)

    def evaluations(self) -> int:
        """The steps of the training."""
        return self.training_steps

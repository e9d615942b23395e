"""SPEAR (Dimitrov et al., NeurIPS 2024): batches read off one fully connected layer's gradient, exactly."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from attacks import labels as label_rules
from attacks import parameters as shared
from attacks.base import Attack, Task, attack, channel_statistics
from attacks.exact import first_layer, last_layer, layers
from attacks.exact.separation import CERTAIN
from attacks.inverting_gradients import InvertingGradients
from dpbench.protocol import Reconstruction, parameter


@attack("spear")
class Spear(Attack):
    """Solves for the samples that ReLU keeps apart; searches for what cannot be solved for.

    Where the first layer is fully connected, its gradient gives images. Elsewhere the last layer's gives
    labels and features, and the images are searched for. Samples whose gradients are below the rounding
    errors of the others' are not found: they get the public mean image.

    Attributes:
        engine: backend of the search.
    """

    iterations: int = shared.iterations(1500)
    starts: int = parameter(
        4096, "most starts of spear's search for samples", at_least=1, at_most=100_000_000
    )
    engine: str = "auto"

    def run(self, task: Task) -> Reconstruction:
        """See `Attack.__call__`."""
        release, knowledge = task.release, task.knowledge
        chain = layers.read(knowledge.model, knowledge.image_shape)
        given = (release, knowledge)
        if first_layer.takes_pixels(chain):
            found, why = first_layer.images(*given, chain, task.generator, self.starts)
            if found is not None:
                return self.solved(task, found)
        else:
            found, why = last_layer.samples(*given, task.generator, self.starts)
        return self.searched(task, None if found is None else found.labels, why)

    def solved(self, task: Task, found: first_layer.Images) -> Reconstruction:
        """The images that were found, and the public mean image in place of the others."""
        labels, source = completed_labels(task, found.labels)
        start = mean_images(task)
        images, residual = start.clone(), torch.ones(len(start), device=task.device)
        images[: len(found.images)] = found.images.clamp(0, 1).float()
        residual[: len(found.residual)] = found.residual.float()
        certified = residual < CERTAIN
        task.progress(self.evaluations(), self.evaluations(), float(residual.max()))
        return Reconstruction(
            images=images,
            labels=labels,
            label_source=source,
            gradient_distance=float(residual.max()),
            start=start,
            iterations=0,
            seconds=task.seconds(),
            engine="none",
            certified=certified,
            residual=residual,
            note=missing_note(len(start) - len(found.images)),
        )

    def searched(self, task: Task, labels: Tensor | None, why: str) -> Reconstruction:
        """What the default search finds, with exact labels where there are any."""
        if labels is not None:
            labels, source = completed_labels(task, labels)
        else:
            labels, source = label_rules.given_or_inferred(task.release, task.knowledge)
        told = replace(task, knowledge=replace(task.knowledge, labels=labels))
        found = InvertingGradients(iterations=self.iterations, engine=self.engine).run(told)
        note = f"Not solved but searched: {why}." if why else "Labels are exact; the images are searched for."
        certified = torch.zeros(len(labels), dtype=torch.bool, device=task.device)
        return replace(found, label_source=source, certified=certified, note=note)


def completed_labels(task: Task, found: Tensor) -> tuple[Tensor, str]:
    """Labels [B] that begin with those found; the rest are known or inferred. And which of both they are."""
    guessed, source = label_rules.given_or_inferred(task.release, task.knowledge)
    left = guessed.tolist()
    for label in found.tolist():
        left.remove(label if label in left else left[-1])
    missing = task.release.batch_size - len(found)
    return torch.cat([found, found.new_tensor(left[:missing])]), source


def mean_images(task: Task) -> Tensor:
    """[B, C, H, W], each the public mean image, or of the public mean colour where there is none."""
    knowledge = task.knowledge
    if knowledge.image_statistics is not None:
        mean = knowledge.image_statistics.mean_image.to(task.device)
    else:
        mean, _ = channel_statistics(knowledge, torch.zeros(1, device=task.device))
    return mean.float().expand(task.release.batch_size, *knowledge.image_shape).contiguous()


def missing_note(missing: int) -> str:
    """The sentence about samples that were not found; empty where all were."""
    if not missing:
        return ""
    return (
        f"Gradients of {missing} samples are below the rounding errors of the others'; they were not found."
    )

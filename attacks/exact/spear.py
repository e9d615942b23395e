"""SPEAR (Dimitrov et al., NeurIPS 2024): batches read off one fully connected layer's gradient, exactly."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import torch
from torch import Tensor

from attacks import bottleneck
from attacks import labels as label_rules
from attacks import parameters as shared
from attacks.base import Attack, Task, attack, channel_statistics
from attacks.exact import descent, first_layer, last_layer, layers, pixels
from attacks.exact.separation import CERTAIN
from attacks.held import with_samples
from attacks.inverting_gradients import InvertingGradients
from attacks.reading import as_it_was
from dpbench.protocol import Reconstruction, bottleneck_head, full_precision, parameter

COST = 3
"""Iterations of the default search that take as long as one conjugate gradient."""
ROUNDING = 1e-5
"""A relative residual of the whole release below which only rounding errors are left."""
PUSH = 0.03
"""Standard deviation of the noise that is added to images to see whether a search comes back to them."""
DETERMINED = 1e-3
"""Root mean square distance within which it has to."""
UNDETERMINED = "The images explain the release, and so may others: a search from nearby ended elsewhere."


@attack("spear")
class Spear(Attack):
    """Solves for the samples that can be told apart; searches for what cannot be solved for.

    Where the first layer is fully connected, its gradient gives the images. Elsewhere the last layer's gives
    labels and features. Below convolutions with ReLU, those of the layers before follow from them as far as
    the equations suffice, and the images are searched for from there. More than 64 images of a first layer
    that cannot be solved for are handed back as they were unmixed. Any other model, and any other release
    that cannot be solved, is left to `inverting-gradients`. Samples whose gradients are below the rounding
    errors of the others' are not found: they get the public mean image, as do images that were not unmixed.

    Attributes:
        engine: backend of the search.
    """

    iterations: int = shared.iterations(1500)
    starts: int = parameter(
        2048, "most starts of spear's search for samples", at_least=1, at_most=100_000_000
    )
    engine: str = "auto"

    def run(self, task: Task) -> Reconstruction:
        """See `Attack.__call__`."""
        task = replace(task, release=as_it_was(task.release))
        release, knowledge = task.release, task.knowledge
        chain = layers.read(knowledge.model, knowledge.image_shape)
        if first_layer.takes_pixels(chain):
            images, why = first_layer.images(
                release, knowledge, chain, task.generator, self.starts, task.tell
            )
            return self.searched(task, None, why) if images is None else self.solved(task, images, why)
        if (coded := behind_code(task)) is not None:
            samples, task = coded
        else:
            samples, why = last_layer.samples(release, knowledge, task.generator, self.starts, task.tell)
            if samples is None:
                return self.searched(task, None, why)
        if not descent.fits(chain, samples.layer):
            ends = f"the chain ends at {chain.end}" if chain.end else "layers are no convolutions with ReLU"
            exact = exact_labels(samples, release.batch_size)
            return self.searched(task, samples, f"{exact}, but {ends}")
        with full_precision(task.device):  # conjugate gradients stall under TF32
            return self.descended(task, samples, chain)

    def wants(self) -> frozenset[str]:
        """See `Attack.wants`; the mean image stands in for samples that were not found."""
        return super().wants() | {"image_statistics"}

    def solved(self, task: Task, found: first_layer.Images, why: str) -> Reconstruction:
        """The images that were found, and the public mean image in place of the others.

        Where `why` says that they are unmixed and no more, none is certified.
        """
        labels, source = completed_labels(task, found.labels)
        start = mean_images(task)
        images, residual = start.clone(), torch.ones(len(start), device=task.device)
        images[: len(found.images)] = found.images.clamp(0, 1).float()
        residual[: len(found.residual)] = found.residual.float().clamp(max=1)
        certified, missing = (residual < CERTAIN) & (not why), len(start) - len(found.images)
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
            note=unmixed_note(missing, len(start), why) if why else missing_note(missing),
        )

    def descended(self, task: Task, samples: last_layer.Samples, chain: layers.Chain) -> Reconstruction:
        """Images searched for from what is known of the layers' outputs.

        Those that explain the release are certified if a second search, from nearby, finds them again.
        """
        labels, source = completed_labels(task, samples.labels)
        start, found, history = mean_images(task), len(samples.labels), []
        level = descent.descend(
            chain, samples, dict(zip(task.release.names, task.release.gradients, strict=True))
        )

        def progress(done: int, value: float) -> None:
            history.append(value)
            task.progress(COST * done, self.evaluations(), value)

        images, steps = start.clone(), max(1, self.iterations // COST)
        images[:found] = pixels.searched(chain, level, task.knowledge, start[:found], steps, progress)
        images = images.clamp(0, 1)
        residual = unexplained(task, images[:found], samples)
        certified = torch.zeros(len(labels), dtype=torch.bool, device=task.device)
        layer = chain.blocks[level.index].layer.name
        note = f"Labels and what `{layer}` put out are exact; the images before it are searched for."
        if bool((samples.residual >= CERTAIN).any()):
            note = f"Only {exact_labels(samples, len(labels))}; the images are searched for."
        if residual < ROUNDING:
            nearby = images[:found] + PUSH * task.noise(*images[:found].shape)
            again = pixels.searched(chain, level, task.knowledge, nearby, steps, lambda *_: None).clamp(0, 1)
            errors = (again - images[:found]).square().mean((1, 2, 3)).sqrt()
            certified[:found] = errors <= DETERMINED
            if not bool(certified[:found].all()):
                note = UNDETERMINED
        return Reconstruction(
            images=images,
            labels=labels,
            label_source=source,
            gradient_distance=residual,
            start=start,
            iterations=steps,
            seconds=task.seconds(),
            history=tuple(history),
            certified=certified,
            residual=torch.full((len(labels),), residual, device=task.device),
            note=f"{missing_note(len(labels) - found)} {note}".strip(),
        )

    def searched(self, task: Task, samples: last_layer.Samples | None, why: str) -> Reconstruction:
        """What the default search finds, told what the last layer told of `samples`."""
        knowledge = task.knowledge
        if samples is not None:
            labels, source = completed_labels(task, samples.labels)
            knowledge = with_samples(knowledge, task.release, samples, labels)
        else:
            labels, source = label_rules.given_or_inferred(task.release, knowledge, tell=task.tell)
        told = replace(task, knowledge=replace(knowledge, labels=labels))
        found = InvertingGradients(iterations=self.iterations, engine=self.engine).run(told)
        certified = torch.zeros(len(labels), dtype=torch.bool, device=task.device)
        note = f"Not solved but searched: {why}. {found.note}".rstrip()
        return replace(found, label_source=source, certified=certified, note=note)


def behind_code(task: Task) -> tuple[last_layer.Samples, Task] | None:
    """The samples as the encoder of a random code tells them, and the task with their codes' noise in order.

    None where the victim has no code, or its noise could not be read.
    """
    found = bottleneck_head(task.knowledge.model)
    if found is None or task.release.defense:
        return None
    draws = bottleneck.read(task.release, task.knowledge, task.generator)
    if draws is None:
        return None
    model = copy.deepcopy(task.knowledge.model)
    code = bottleneck_head(model)[1].bottleneck
    code.noise = draws.noise.to(code.decoder.weight)
    samples = last_layer.Samples(
        layer=f"{found[0]}.bottleneck.encoder",
        features=draws.features,
        deltas=draws.deltas,
        labels=draws.labels,
        factors=torch.ones_like(draws.residual),
        residual=draws.residual,
    )
    return samples, replace(task, knowledge=replace(task.knowledge, model=model))


def unexplained(task: Task, images: Tensor, samples: last_layer.Samples) -> float:
    """How far the gradient of `images`, clipped as the samples' were, is from the release, relative."""
    model = copy.deepcopy(task.knowledge.model).double()
    parameters = [p for p in model.parameters() if p.requires_grad]
    weights = samples.factors / task.release.batch_size
    with torch.enable_grad():
        logits = model(images.double())
        losses = [
            task.knowledge.loss(logits[i : i + 1], samples.labels[i : i + 1]) for i in range(len(images))
        ]
        total = (torch.stack(losses) * weights).sum()
    ours = torch.autograd.grad(total, parameters, materialize_grads=True)
    pairs = list(zip(ours, task.release.gradients, strict=True))
    left = sum(float((a - b).square().sum()) for a, b in pairs)
    return math.sqrt(left / max(sum(float(b.double().square().sum()) for _, b in pairs), math.ulp(0)))


def completed_labels(task: Task, found: Tensor) -> tuple[Tensor, str]:
    """Labels [B] that begin with those found; the rest are known or inferred. And which of both they are."""
    guessed, source = label_rules.given_or_inferred(task.release, task.knowledge, tell=task.tell)
    return label_rules.completed(found, guessed), source


def exact_labels(samples: last_layer.Samples, batch: int) -> str:
    """How many of a batch's labels are exact, as a clause."""
    count = int((samples.residual < CERTAIN).sum())
    return "labels are exact" if count == batch else f"{count} of {batch} labels are exact"


def mean_images(task: Task) -> Tensor:
    """[B, C, H, W], each the public mean image, or of the public mean colour where there is none."""
    knowledge, statistics = task.knowledge, task.knowledge.image_statistics
    if statistics is not None and tuple(statistics.mean_image.shape) == knowledge.image_shape:
        mean = statistics.mean_image.to(task.device)
    else:
        mean, _ = channel_statistics(knowledge, torch.zeros(1, device=task.device))
    return mean.float().expand(task.release.batch_size, *knowledge.image_shape).contiguous()


def unmixed_note(missing: int, batch: int, why: str) -> str:
    """The sentence about images that are unmixed and no more, and about those that are not."""
    count = f"{batch - missing} of {batch}" if missing else "All"
    return f"Not solved: {why}. {count} images were unmixed by the differences of their pixels."


def missing_note(missing: int) -> str:
    """The sentence about samples that were not found; empty where all were."""
    if not missing:
        return ""
    if missing == 1:
        return "The gradient of 1 sample is below the rounding errors of the others'; it was not found."
    return (
        f"Gradients of {missing} samples are below the rounding errors of the others'; they were not found."
    )

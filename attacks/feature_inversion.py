"""Images from the features that the last layer's gradient gives away, where a head is trained alone."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from attacks import parameters as shared
from attacks.annealed import draw, levels
from attacks.base import Attack, Task, attack
from attacks.denoising import WITHOUT_DENOISER, denoiser_or_wiener, tried_on
from attacks.exact import last_layer
from attacks.exact.spear import completed_labels, missing_note
from attacks.gaussian_prior import Whitening
from attacks.inverting_gradients import InvertingGradients
from attacks.linear_estimate import FEWEST, check_statistics
from attacks.reading import as_it_was
from dpbench.protocol import InputError, Knowledge, Reconstruction, parameter

PRODUCTS = 4
"""Conjugate gradients of a Gauss-Newton step; tuned, like ..."""
NEWTON = 4
"""... the steps of a level."""
LEAST = 1e-3
"""Relative error that features are matched to, and that they are taken to have."""
RIDGE = 1e-3
"""Of the regression that a draw begins at, relative to the largest variance of the features."""
REST = "The default search rebuilt what is missing."
LARGE = 256
"""Public images that are run through the victim at once, at most."""


class Features:
    """Features that one image has to have.

    Args:
        knowledge: the victim.
        labels: int64 [1], the image's label.
        layer: the name of the last layer.
        values: what that layer takes, [1, m].
    """

    def __init__(self, knowledge: Knowledge, labels: Tensor, layer: str, values: Tensor) -> None:
        self.knowledge, self.labels, self.layer = knowledge, labels, layer
        self.values = values.to(next(knowledge.model.parameters()))
        self.deviation = LEAST * self.values.norm().clamp_min(torch.finfo(self.values.dtype).tiny)

    def of(self, images: Tensor) -> Tensor:
        """The features of images [n, C, H, W], [n, m]."""
        seen: list[Tensor] = []
        layer = self.knowledge.model.get_submodule(self.layer)
        handle = layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        try:
            self.knowledge.model(images)
        finally:
            handle.remove()
        return seen[-1]

    def residuals(self, images: Tensor) -> Tensor:
        """See `annealed.Told`."""
        return ((self.of(images) - self.values) / self.deviation).flatten()


@attack("feature-inversion")
class FeatureInversion(Attack):
    """Reads each sample's features off the last layer's gradient, and draws images that have them.

    The gradient of a fully connected layer is a sum of (loss gradient of the outputs) x (features). Of one
    sample it gives the features exactly, also clipped; of several, if ReLU keeps them apart (`spear`).
    The images are drawn as by `posterior-mean`, given the features in place of the gradient, and averaged.
    Gradients of other layers are not used. Samples that are not found, and releases that are no exact
    gradients, are left to `inverting-gradients`, which gets the iterations of one draw.

    After Maui (Dabholkar et al. 2025), which trains a network to invert the features; the drawing is ours.

    Attributes:
        engine: backend of the search that other releases are left to.
    """

    needs = frozenset({"public_images", "image_statistics"})
    exact = True

    iterations: int = shared.iterations(960)
    restarts: int = shared.restarts(4)
    public_images: int = shared.public_images()
    starts: int = parameter(
        2048, "most starts of spear's search for samples", at_least=1, at_most=100_000_000
    )
    engine: str = "auto"

    def run(self, task: Task) -> Reconstruction:
        """See `Attack.__call__`; `gradient_distance` is the largest relative error of an image's features.

        Raises:
            InputError: where there are no statistics of images, or too few public images of a label.
        """
        task = replace(task, release=as_it_was(task.release))
        check_statistics(task.knowledge, self.name)
        samples, why = last_layer.samples(task.release, task.knowledge, task.generator, self.starts)
        if samples is None:
            found = self.searched(task)
            return replace(found, note=f"Not solved but searched: {why}. {found.note}".rstrip())
        return self.inverted(task, samples)

    def searched(self, task: Task) -> Reconstruction:
        """What the default search finds."""
        total = self.evaluations()
        tell = lambda done, whole, value: task.progress(done * total // whole, total, value)  # noqa: E731
        search = InvertingGradients(iterations=self.iterations, engine=self.engine)
        return search.run(replace(task, progress=tell))

    def wants(self) -> frozenset[str]:
        """See `Attack.wants`; it does without a denoiser, too."""
        return super().wants() | {"image_denoiser"}

    def inverted(self, task: Task, samples: last_layer.Samples) -> Reconstruction:
        """Images [B, C, H, W] of these features, one after the other; the search's where none were found."""
        knowledge, whitening = task.knowledge, Whitening(task.knowledge.image_statistics).to(task.device)
        labels, source = completed_labels(task, samples.labels)
        count, total = len(samples.labels), self.evaluations()
        images, starts, errors = [], [], []
        notes = [WITHOUT_DENOISER] if knowledge.image_denoiser is None else []
        for i, label in enumerate(samples.labels):
            told = Features(knowledge, label[None], samples.layer, samples.features[i : i + 1])
            mean, start = self.regression(told)
            denoiser = denoiser_or_wiener(knowledge, whitening, label[None], mean)
            drawn = torch.zeros_like(mean)
            with torch.no_grad():
                steps = levels(
                    max(1, self.iterations // (NEWTON * PRODUCTS)),
                    denoiser,
                    whitening,
                    *tried_on(knowledge, label[None]),
                    task.noise,
                )
                for done in range(1, self.restarts + 1):
                    drawn += draw(told, start, steps, denoiser, whitening, task.noise, NEWTON, PRODUCTS)
                    image = (drawn / done).clamp(0, 1)
                    error = LEAST * float(told.residuals(image).norm())
                    task.progress((i * self.restarts + done) * total // (count * self.restarts), total, error)
            images.append(image)
            starts.append(mean.clamp(0, 1))
            errors.append(error)
        if count < len(labels):
            rest = self.searched(replace(task, knowledge=replace(knowledge, labels=labels)))
            images.append(rest.images[count:])
            starts.append(rest.start[count:])
            notes = [missing_note(len(labels) - count), REST, *notes]
        return Reconstruction(
            images=torch.cat(images),
            labels=labels,
            label_source=source,
            gradient_distance=max(errors),
            start=torch.cat(starts),
            iterations=total,
            seconds=task.seconds(),
            engine="none",
            note=" ".join(notes),
        )

    def regression(self, told: Features) -> tuple[Tensor, Tensor]:
        """The mean public image of the label, and the ridge regression on the features; [1, C, H, W] each.

        Raises:
            InputError: where there are too few public images of the label.
        """
        label = int(told.labels[0])
        public = told.knowledge.public_images.of(label, self.public_images).to(told.values.device)
        if len(public) < FEWEST:
            raise InputError(
                f"{self.name} needs {FEWEST} public images of label {label}, and there are {len(public)}: "
                "give more of them, or raise `public_images`."
            )
        with torch.no_grad():
            features = torch.cat([told.of(each) for each in public.split(LARGE)]).double()
        middle, mean = features.mean(0), public.mean(0)
        rows, images = features - middle, (public - mean).flatten(1).double()
        inner = rows @ rows.T
        inner += RIDGE * torch.linalg.eigvalsh(inner)[-1].clamp_min(1e-30) * torch.eye(len(rows)).to(inner)
        weights = torch.linalg.solve(inner, rows @ (told.values[0].double() - middle))
        return mean[None], (mean + (weights @ images).view_as(mean).float())[None]

"""Images from the features that the last layer's gradient gives away, where a head is trained alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from attacks import parameters as shared
from attacks.annealed import draw, in_order, levels
from attacks.base import Attack, Task, attack
from attacks.denoising import WITHOUT_DENOISER, denoiser_or_wiener, tried_on
from attacks.exact import last_layer
from attacks.exact.spear import behind_code, completed_labels, missing_note
from attacks.gaussian_prior import Whitening
from attacks.head_features import Features, LayerGradient, are_of_images
from attacks.inverting_gradients import InvertingGradients
from attacks.linear_estimate import FEWEST, check_statistics, estimate
from attacks.reading import as_it_was, linear
from dpbench.protocol import InputError, Knowledge, Reconstruction, Release, parameter

PRODUCTS = 4
"""Conjugate gradients of a Gauss-Newton step; tuned, like ..."""
NEWTON = 4
"""... the steps of a level."""
RIDGE = 1e-3
"""Of the regression that a draw begins at, relative to the largest variance of the features."""
REST = "The default search rebuilt what is missing."
LARGE = 256
"""Public images that are run through the victim at once, at most."""


@attack("feature-inversion")
class FeatureInversion(Attack):
    """Reads each sample's features off the last layer's gradient, and draws images that have them.

    The gradient of a fully connected layer is a sum of (loss gradient of the outputs) x (features). Of one
    sample it gives the features exactly, also clipped; of several, if they can be told apart (`spear`). The
    images are drawn as by `posterior-mean`, given the features in place of the gradient, and averaged. Under
    noise, images are drawn whose features fit this layer's gradient (`LayerGradient`). Gradients of other
    layers are not used. Samples that are not found, and releases that are no gradients, exact or under noise,
    are left to `inverting-gradients`, which gets the iterations of one draw.

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

        Under noise it is that of the layer's gradient, the noise included.

        Raises:
            InputError: where there are no statistics of images, or too few public images of a label.
        """
        task = replace(task, release=as_it_was(task.release))
        check_statistics(task.knowledge, self.name)
        if (coded := behind_code(task)) is not None:
            samples, task = coded
            return self.inverted(task, samples)
        samples, why = last_layer.samples(
            task.release, task.knowledge, task.generator, self.starts, task.tell
        )
        names = None if samples is not None else _under_noise(task.release, task.knowledge)
        layer = samples.layer if samples is not None else names and names[0].removesuffix(".weight")
        if layer is not None and not are_of_images(task.knowledge, layer):
            why = f"`{layer}` takes no row of features of each image that a gradient leads back from"
        elif samples is not None:
            return self.inverted(task, samples)
        elif names is not None:
            return self.fitted(task, names)
        found = self.searched(task)
        return replace(found, note=f"Not solved but searched: {why}. {found.note}".rstrip())

    def searched(self, task: Task) -> Reconstruction:
        """What the default search finds."""
        total = self.evaluations()
        tell = lambda done, whole, value: task.progress(done * total // whole, total, value)  # noqa: E731
        search = InvertingGradients(iterations=self.iterations, engine=self.engine)
        return search.run(replace(task, progress=tell))

    def wants(self) -> frozenset[str]:
        """See `Attack.wants`; it does without a denoiser, too."""
        return super().wants() | {"image_denoiser"}

    def fitted(self, task: Task, names: tuple[str, str]) -> Reconstruction:
        """Images [B, C, H, W] whose features fit the gradient of these, the last layer's weight and bias."""
        knowledge, release, total = task.knowledge, task.release, self.evaluations()
        found = estimate(release, knowledge, self.public_images, task.device)
        gradients = dict(zip(release.names, release.gradients, strict=True))
        weight, bias = (release.batch_size * gradients[name] for name in names)
        layer, noise = names[0].removesuffix(".weight"), linear(release).noise
        told = LayerGradient(knowledge, found.labels, layer, torch.cat([weight, bias[:, None]], 1), noise)
        tell = lambda done, value: task.progress(done * self.iterations, total, value)  # noqa: E731
        images, error = self.drawn(task, told, found.images, found.means, tell)
        return Reconstruction(
            images=images,
            labels=found.labels,
            label_source=found.source,
            gradient_distance=error,
            start=found.means.clamp(0, 1),
            iterations=total,
            seconds=task.seconds(),
            engine="none",
            note=_noted(knowledge, "Under noise features are fitted, not read."),
        )

    def inverted(self, task: Task, samples: last_layer.Samples) -> Reconstruction:
        """Images [B, C, H, W] of these features, one after the other; the search's where none were found."""
        knowledge = task.knowledge
        labels, source = completed_labels(task, samples.labels)
        count, total = len(samples.labels), self.evaluations()
        images, starts, errors, notes = [], [], [], []
        for i, label in enumerate(samples.labels):
            told = Features(knowledge, label[None], samples.layer, samples.features[i : i + 1])
            mean, start = self.regression(told)

            def tell(done: int, value: float, before: int = i * self.restarts) -> None:
                task.progress((before + done) * total // (count * self.restarts), total, value)

            image, error = self.drawn(task, told, start, mean, tell)
            images.append(image)
            starts.append(mean.clamp(0, 1))
            errors.append(error)
        if count < len(labels):
            rest = self.searched(replace(task, knowledge=replace(knowledge, labels=labels)))
            images.append(rest.images[count:])
            starts.append(rest.start[count:])
            notes = [missing_note(len(labels) - count), REST]
        return Reconstruction(
            images=torch.cat(images),
            labels=labels,
            label_source=source,
            gradient_distance=max(errors),
            start=torch.cat(starts),
            iterations=total,
            seconds=task.seconds(),
            engine="none",
            note=_noted(knowledge, *notes),
        )

    def drawn(
        self,
        task: Task,
        told: Features | LayerGradient,
        start: Tensor,
        means: Tensor,
        tell: Callable[[int, float], None],
    ) -> tuple[Tensor, float]:
        """The mean of the draws, [B, C, H, W], and its relative error.

        Args:
            task: the knowledge and the random numbers.
            told: what the images have to have.
            start: where a draw begins, [B, C, H, W].
            means: of the labels, likewise.
            tell: is called with the number of draws done and the error so far.
        """
        knowledge, whitening = task.knowledge, Whitening(task.knowledge.image_statistics).to(task.device)
        denoiser = denoiser_or_wiener(knowledge, whitening, told.labels, means)
        total, image, error = torch.zeros_like(start), start, 0.0
        with torch.no_grad():
            count = max(1, self.iterations // (NEWTON * PRODUCTS))
            steps = levels(count, denoiser, whitening, *tried_on(knowledge, told.labels), task.noise)
            for done in range(1, self.restarts + 1):
                found = draw(told, start, steps, denoiser, whitening, task.noise, NEWTON, PRODUCTS)
                total += in_order(found, total, told.labels)
                image = (total / done).clamp(0, 1)
                error = told.error(image)
                tell(done, error)
        return image, error

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


def _under_noise(release: Release, knowledge: Knowledge) -> tuple[str, str] | None:
    """The names of the last layer's weight and bias, if what was sent of them is their sum under noise."""
    seen = linear(release)
    if seen.weights is not None or not seen.noise:
        return None
    try:
        return last_layer.last_layer(release, knowledge)
    except InputError:
        return None


def _noted(knowledge: Knowledge, *notes: str) -> str:
    return " ".join([*notes, *([WITHOUT_DENOISER] if knowledge.image_denoiser is None else [])])

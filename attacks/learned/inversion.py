"""Sketch, linear estimate and decoder, learnt from public images under a defence."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from attacks.learned.back_projection import BackProjection, fitted, principal
from attacks.learned.decoder import Decoder, trained
from attacks.learned.simulate import simulated
from attacks.learned.sketch import Sketch
from dpbench.protocol import InputError, Knowledge, Release

SKETCH = 8192
"""Numbers that a gradient is compressed to, at most."""
RANK = 384
"""Principal components of images that are estimated."""
FEWEST = 20
"""Public images of a label, at least."""


class Inversion(nn.Module):
    """From one image's release to that image.

    Args:
        sizes: entries of each tensor of the gradient.
        labels: those it was trained for, int64 [L].
        centres: mean sketch of each, [L, F].
        weights: linear estimates of components, [L, F, R].
        means: mean image of each label, [L, C, H, W].
        components: orthonormal [R, C * H * W].
        decoder: from linear estimates to images.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        labels: Tensor,
        centres: Tensor,
        weights: Tensor,
        means: Tensor,
        components: Tensor,
        decoder: Decoder,
    ) -> None:
        super().__init__()
        self.sketch = sketch_of(sizes).to(means.device)
        for name, value in zip(
            ("labels", "centres", "weights", "means", "components"),
            (labels, centres, weights, means, components),
            strict=True,
        ):
            self.register_buffer(name, value.contiguous())  # as it is read from a file
        self.decoder = decoder

    def forward(self, gradients: Sequence[Tensor], label: int) -> tuple[Tensor, Tensor]:
        """The image [C, H, W], not clamped, and the mean image of its label.

        Raises:
            InputError: for a label that it was not trained for.
        """
        places = (self.labels == label).nonzero().flatten()
        if not len(places):
            raise InputError(
                f"There are no {FEWEST} public images of label {label} to learn from: give more of them, or "
                "raise `training_images`."
            )
        place = int(places)
        sketch = (self.sketch(gradients) - self.centres[place])[None]
        found = sketch @ self.weights[place] @ self.components
        mean = self.means[place]
        return self.decoder((mean + found.view_as(mean))[None], mean[None])[0], mean


def sketch_of(sizes: Sequence[int]) -> Sketch:
    """The one that every inversion of such gradients uses."""
    return Sketch(sizes, SKETCH, torch.Generator().manual_seed(0))


def learnt(
    like: Release,
    knowledge: Knowledge,
    images: Tensor,
    labels: Tensor,
    steps: int,
    report: Callable[[int, float], None],
) -> Inversion:
    """Trained on what the defence of `like` makes of public images.

    Each linear estimate that the decoder learns from is made without its own image, as that of an attacked
    image is.

    Args:
        like: a release of one image.
        knowledge: the victim and its loss.
        images: public ones, [n, C, H, W] in [0, 1].
        labels: int64 [n].
        steps: of the decoder's training.
        report: as for `decoder.trained`.
    """
    sizes = [g.numel() for g in like.gradients]
    sketch = sketch_of(sizes).to(images.device)
    generator = torch.Generator(device=images.device).manual_seed(2)
    sketches = torch.stack([sketch(g) for g in simulated(like, knowledge, images, labels, generator)])
    known = labels.unique()
    members = [(labels == label).nonzero().flatten() for label in known]
    means = torch.stack([images[of].mean(0) for of in members])
    place = torch.searchsorted(known, labels)
    centred = (images - means[place]).flatten(1)
    components = principal(centred, RANK)
    targets = centred @ components.T
    each: list[BackProjection] = [fitted(sketches[of], targets[of], sketch.shares) for of in members]
    estimates = torch.empty_like(images)
    for of, mean, found in zip(members, means, each, strict=True):
        estimates[of] = mean + (found.alone @ components).unflatten(1, mean.shape)
    decoder = trained(estimates, means[place], images, steps, report)
    centres, weights = (torch.stack([getattr(f, name) for f in each]) for name in ("centre", "weights"))
    return Inversion(sizes, known, centres, weights, means, components, decoder)

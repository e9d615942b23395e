"""What images have to have if the last layer's gradient is to be theirs."""

from __future__ import annotations

import torch
from torch import Tensor

from dpbench.protocol import Knowledge

LEAST = 1e-3
"""Relative error that features are matched to, and that they are taken to have; of gradients, at least."""
ALIKE = 1e-3
"""Ridge of the fit of loss gradients to features of length 1: some images may have the same ones."""


def features(knowledge: Knowledge, layer: str, images: Tensor) -> Tensor:
    """What the layer of that name takes of images [n, C, H, W], [n, m]."""
    seen: list[Tensor] = []
    module = knowledge.model.get_submodule(layer)
    handle = module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    try:
        knowledge.model(images)
    finally:
        handle.remove()
    return seen[-1]


def are_of_images(knowledge: Knowledge, layer: str) -> bool:
    """Whether the layer takes one row for each image, and a gradient leads from it to the image.

    Not so where it runs once for each image or patch, or behind `detach`.
    """
    images = torch.zeros(2, *knowledge.image_shape).to(next(knowledge.model.parameters()))
    with torch.enable_grad():
        rows = features(knowledge, layer, images.requires_grad_())
        if rows.ndim != 2 or len(rows) != len(images) or not rows.requires_grad:
            return False
        (back,) = torch.autograd.grad(rows.sum(), images, allow_unused=True)
    return back is not None


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
        return features(self.knowledge, self.layer, images)

    def residuals(self, images: Tensor) -> Tensor:
        """See `annealed.Told`."""
        return ((self.of(images) - self.values) / self.deviation).flatten()

    def error(self, images: Tensor) -> float:
        """Of the features of `images`, relative."""
        return LEAST * float(self.residuals(images).norm())


class LayerGradient:
    """A gradient of the last layer, under noise, that images have to have.

    It is D^T H, H the features with a 1 appended for the bias, D the loss gradients of the outputs as the
    defence clips them. D, which changes sharply with the images, is not computed from them: it is what fits
    best, given H, and taken for constant when H is moved (alternating least squares). So neither clip factors
    nor the victim's loss matter.

    Args:
        knowledge: the victim.
        labels: int64 [B].
        layer: the name of the last layer.
        total: the sum over the batch of the gradients of its weight and its bias, [outputs, m + 1].
        noise: standard deviation of the noise on each entry of the sum.
    """

    def __init__(self, knowledge: Knowledge, labels: Tensor, layer: str, total: Tensor, noise: float) -> None:
        self.knowledge, self.labels, self.layer, self.total = knowledge, labels, layer, total
        least = LEAST * self.total.norm().clamp_min(torch.finfo(total.dtype).tiny)
        self.deviation = least.clamp_min(noise)

    def residuals(self, images: Tensor) -> Tensor:
        """See `annealed.Told`."""
        rows = features(self.knowledge, self.layer, images)
        rows = torch.cat([rows, rows.new_ones(len(rows), 1)], 1)
        rows = rows / rows.norm(dim=1, keepdim=True)
        known = rows.detach()
        inner = known @ known.T + ALIKE * torch.eye(len(rows)).to(known)
        deltas = torch.linalg.solve(inner, known @ self.total.T)
        return ((deltas.T @ rows - self.total) / self.deviation).flatten()

    def error(self, images: Tensor) -> float:
        """Of the gradient that fits the features of `images`, relative to the one that was sent."""
        left = self.deviation * self.residuals(images).norm()
        return float(left / self.total.norm().clamp_min(torch.finfo(self.total.dtype).tiny))

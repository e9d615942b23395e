"""Loss gradients of a first layer's outputs at images that were guessed: where a search for real ones starts.

A row of D is what the network propagates back at some image with some label. Images resemble each other, and
so do their rows: those of images drawn from public statistics are nearer to the batch's than random vectors.
Those of the batch's own images, unmixed by their derivatives, are much nearer.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from attacks.exact.independent import independent
from attacks.exact.layers import Chain
from attacks.gaussian_prior import Whitening
from dpbench.protocol import Knowledge


class MadeUp:
    """Rows of D at images of a Gaussian field, which later ones share with the samples not found yet.

    Args:
        knowledge: with `image_statistics`.
        chain: the model's, which begins with a fully connected layer.
        gradient: float64 [m, n], of that layer's weight.
        labels: int64, that a batch may have, likelier ones more often.
        generator: on the CPU.
    """

    def __init__(
        self, knowledge: Knowledge, chain: Chain, gradient: Tensor, labels: Tensor, generator: torch.Generator
    ) -> None:
        self.knowledge, self.chain, self.gradient = knowledge, chain, gradient
        self.labels, self.generator = labels.to(gradient.device), generator
        self.whitening = Whitening(knowledge.image_statistics).to(gradient.device)
        self.model = copy.deepcopy(knowledge.model).double()

    def __call__(self, away: Tensor, missing: Tensor | None) -> Tensor:
        """Rows [n, m].

        The gradient times a vector that is orthogonal to all rows found is a mixture of the inputs whose rows
        are missing. What an input has outside these mixtures is taken from it.

        Args:
            away: [n] in [0, 1], how much of that is taken from each.
            missing: [k, m], orthonormal, orthogonal to all rows found so far; None where there are none yet.
        """
        shape = (len(away), *self.knowledge.image_shape)
        entries = torch.randn(shape, generator=self.generator, dtype=torch.float64).to(self.gradient)
        images = self.whitening.inverse(entries).clamp(0, 1)
        if missing is not None:
            mixtures = torch.linalg.qr(self.gradient.T @ missing.T).Q
            inputs = through(self.chain, images)
            kept = inputs - away[:, None] * (inputs - inputs @ mixtures @ mixtures.T)
            kept = kept * (inputs.norm(dim=1) / kept.norm(dim=1))[:, None]
            images = back(self.chain, kept).view(shape)
        drawn = torch.randint(len(self.labels), away.shape, generator=self.generator)
        layer = self.chain.blocks[0].layer.name
        return output_gradients(self.model, self.knowledge, layer, images, [self.labels[drawn]])[0]


AGAIN = 10
"""Times, at most, that inputs follow from rows and rows from these inputs, while it brings them nearer."""


@dataclass(frozen=True)
class Guesses:
    """Images that were guessed, and what the network propagates back at them.

    Attributes:
        images: float64 [k, C, H, W] in [0, 1].
        clamped: [k] in [0, 1], the share of pixels that were not in this range before.
        rows: [k, m], each with the label that leaves least of it outside the space of all rows.
        inside: [K, k] in [0, 1], the share of a row's length that is in that space, with each of K labels.
    """

    images: Tensor
    clamped: Tensor
    rows: Tensor
    inside: Tensor


class Unmixed:
    """Rows of D at the images that are missing, which are unmixed by the differences of their pixels.

    Args:
        knowledge: the victim and its loss.
        chain: the model's, which begins with a fully connected layer.
        weight: float64 [m, n], the gradient of that layer's weight.
        bias: float64 [m], that of its bias.
        generator: on the CPU.
    """

    def __init__(
        self, knowledge: Knowledge, chain: Chain, weight: Tensor, bias: Tensor, generator: torch.Generator
    ) -> None:
        self.knowledge, self.chain = knowledge, chain
        self.weight, self.bias, self.generator = weight, bias, generator
        self.model = copy.deepcopy(knowledge.model).double()

    def __call__(self, missing: Tensor, basis: Tensor) -> Tensor:
        """Rows [k, m] near those that are missing.

        A vector that is orthogonal to all rows found, times the weight's gradient, is a mixture of the inputs
        whose rows are missing, and of no others. These are unmixed, and the network tells their rows.

        Args:
            missing: [k, m], an orthonormal basis of such vectors.
            basis: [r, m], an orthonormal basis of the space of all rows.
        """
        mixed = missing @ self.weight
        best = self.unmixed(missing, basis)
        for _ in range(AGAIN):
            parts = best.rows @ missing.T
            inputs = torch.linalg.lstsq(parts.T, mixed).solution
            found = self.propagated(inputs, parts, missing, basis)
            if not found.inside.amax(0).mean() > best.inside.amax(0).mean():
                break
            best = found
        return best.rows

    def unmixed(self, missing: Tensor, basis: Tensor) -> Guesses:
        """The images whose rows are missing, told apart by the differences of their pixels and nothing else.

        For the arguments see `__call__`.
        """
        mixed = missing @ self.weight
        mixtures = torch.linalg.svd(mixed, full_matrices=False)[2]
        inputs = independent(mixtures, self.knowledge.image_shape, self.generator)
        parts = torch.linalg.lstsq(inputs.T, mixed.T).solution
        return self.propagated(inputs, parts, missing, basis)

    def propagated(self, inputs: Tensor, parts: Tensor, missing: Tensor, basis: Tensor) -> Guesses:
        """What `inputs` are as images, and their rows.

        Args:
            inputs: [k, n], each up to its scale, which the bias gradient tells.
            parts: [k, k], their rows in the basis `missing`, up to the same scales.
            missing: as above.
            basis: as above.
        """
        scale = torch.linalg.lstsq(parts.T, (missing @ self.bias)[:, None]).solution
        pixels = back(self.chain, inputs / scale).nan_to_num()
        images = pixels.clamp(0, 1).unflatten(1, self.knowledge.image_shape)
        clamped = ((pixels < 0) | (pixels > 1)).double().mean(1)
        labels = torch.arange(self.knowledge.num_classes, device=images.device)
        layer = self.chain.blocks[0].layer.name
        found = torch.stack(
            output_gradients(
                self.model, self.knowledge, layer, images, list(labels[:, None].expand(-1, len(images)))
            )
        )
        inside = (found @ basis.T).norm(dim=2) / found.norm(dim=2).clamp_min(torch.finfo(found.dtype).tiny)
        rows = found[inside.argmax(0), torch.arange(len(images), device=images.device)]
        return Guesses(images, clamped, rows, inside)


def through(chain: Chain, images: Tensor) -> Tensor:
    """What the first layer takes of images [B, C, H, W], [B, n]."""
    inputs = images.flatten(1)
    for affine in chain.head:
        inputs = inputs * affine.gain.to(inputs.device) + affine.offset.to(inputs.device)
    return inputs


def back(chain: Chain, inputs: Tensor) -> Tensor:
    """The images, flat, that the first layer took as `inputs` [B, n]."""
    for affine in reversed(chain.head):
        inputs = (inputs - affine.offset.to(inputs.device)) / affine.gain.to(inputs.device)
    return inputs


def output_gradients(
    model: nn.Module, knowledge: Knowledge, layer: str, images: Tensor, labels: Sequence[Tensor]
) -> list[Tensor]:
    """For each of `labels` [B], the gradient [B, m] of each image's loss at the outputs of `layer`.

    Args:
        model: the victim in float64.
        knowledge: its loss.
        layer: name of a module.
        images: float64 [B, C, H, W].
        labels: one label for each image, several times.
    """
    seen: list[Tensor] = []
    hook = model.get_submodule(layer).register_forward_hook(lambda module, given, output: seen.append(output))
    with torch.enable_grad():
        logits = model(images)
        hook.remove()
        losses = [knowledge.loss(logits, each) * len(images) for each in labels]
        return [torch.autograd.grad(loss, seen[0], retain_graph=True)[0] for loss in losses]

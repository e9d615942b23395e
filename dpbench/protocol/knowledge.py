"""What the attacker is told beside the release."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

ORACLES = ("exact", "recovered")
"""Of `bn_stats`, un-noised outputs of the private batch: no differential privacy survives them."""
Loss = Callable[[Tensor, Tensor], Tensor]
"""(logits [B, K], labels [B] or soft labels [B, K]) -> scalar mean over the batch."""


@dataclass(frozen=True)
class Candidates:
    """What an informed attacker is told: all samples of the batch but one, and n candidates for that one.

    Gradients are flat, in the order of the release, and clipped as the defence clips them.

    Attributes:
        images: the candidates, float32 [n, C, H, W] in [0, 1].
        labels: int64 [n].
        gradients: the candidates' gradients [n, P].
        known: sum of the known samples' gradients [P].
    """

    images: Tensor
    labels: Tensor
    gradients: Tensor
    known: Tensor


@dataclass(frozen=True)
class ImageStatistics:
    """Second-order statistics of public images: pixels as a stationary Gaussian field around a mean image.

    Attributes:
        mean_image: [C, H, W] in [0, 1].
        colours: orthogonal [C, C]; row k is the k-th principal colour.
        spectrum: [C, H, W], power of each principal colour at each frequency of the orthonormal 2-D FFT.
    """

    mean_image: Tensor
    colours: Tensor
    spectrum: Tensor


@dataclass(frozen=True)
class PublicImages:
    """Other people's images with their labels, none of them attacked.

    Attributes:
        images: uint8 [n, C, H, W], or float in [0, 1]; on any device.
        labels: int64 [n].
    """

    images: Tensor
    labels: Tensor

    def of(self, label: int | None, count: int) -> Tensor:
        """The first `count` images of a label, None for any: float32 [m, C, H, W] in [0, 1], m <= count."""
        found = self.images[:count]
        if label is not None:
            found = self.images[(self.labels == label).nonzero().flatten()[:count]]
        return found.float() if found.is_floating_point() else found.float() / 255


@dataclass(frozen=True)
class Knowledge:
    """What the attacker is told beside the release.

    Attributes:
        model: a plain copy of the victim in the state the gradient was taken in; takes images in [0, 1].
        loss: the victim's own loss, mean-reduced.
        image_shape: (C, H, W) of pictures; (C, D, H, W) of volumes, (C, L) of signals, (F,) of rows of a
            table, whose features are its channels.
        num_classes: K.
        mean: public per-channel mean of the data, in [0, 1], length C.
        std: public per-channel standard deviation, length C.
        labels: int64 [B] where the attacker knows them, else None.
        bn_stats: where `statistics` are from: `running` (the model's own), `exact` (of the attacked batch),
            `recovered` (from the client's update of the running ones) or `none`.
        statistics: mean and biased variance [channels] of each batch-norm layer's input, in the order of the
            model's modules; empty for `none` and for networks without such layers.
        candidates: for the one sample that of an informed attacker; None for any other.
        image_statistics: of other people's images, disjoint from the attacked ones; None where not to be had.
        image_generator: a module `z [B, latent_dim], y [B, K] -> images [B, C, H, W] in [0, 1]`, trained on
            other people's images; None where there is none.
        image_denoiser: a module `noisy [B, C, H, W], noise [B], labels [B] or None -> expected images`,
            trained on other people's; only for an attack that `wants` it, None where there is none.
        public_images: other people's images; only for an attack that `wants` them, None where not to be had.
    """

    model: nn.Module
    loss: Loss
    image_shape: tuple[int, ...]
    num_classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    labels: Tensor | None = None
    bn_stats: str = "none"
    statistics: tuple[tuple[Tensor, Tensor], ...] = ()
    candidates: Candidates | None = None
    image_statistics: ImageStatistics | None = None
    image_generator: nn.Module | None = None
    image_denoiser: nn.Module | None = None
    public_images: PublicImages | None = None

    @property
    def pictures(self) -> bool:
        """Whether the inputs are pictures (C, H, W)."""
        return len(self.image_shape) == 3

    def per_channel(self, values: Sequence[float], like: Tensor) -> Tensor:
        """One value for each channel, [C, 1, ...] to broadcast over inputs; device and dtype of `like`."""
        found = torch.tensor(values, device=like.device, dtype=like.dtype)
        return found.view(-1, *[1] * (len(self.image_shape) - 1))

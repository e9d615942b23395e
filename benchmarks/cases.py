"""The standard cases: a network, a batch and its undefended gradient, made without reading any file."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attacks.engine.problem import Problem
from attacks.objectives import Cosine
from attacks.regularisers import TotalVariation
from dpbench.data.channels import CIFAR10_MEAN, CIFAR10_STD
from dpbench.protocol import InputError, Knowledge
from dpbench.victim.networks import FrozenBatchNorm2d, build

TV = 0.2
"""Weight of total variation: breaching's for Inverting Gradients."""


@dataclass(frozen=True)
class Case:
    """A network at a size of images and batch."""

    model: str
    size: int
    batch: int
    classes: int = 10

    def __str__(self) -> str:
        return f"{self.model} {self.size} px B={self.batch}"


CASES = {
    "cuda": (
        Case("resnet18", 32, 1),
        Case("resnet18", 32, 8),
        Case("resnet50", 224, 8, 1000),
        Case("resnet50", 224, 48, 1000),
    ),
    "cpu": (Case("convnet", 32, 1), Case("resnet20", 32, 4), Case("resnet18", 32, 1)),
}


@dataclass(frozen=True)
class Scene:
    """What is attacked.

    Attributes:
        case: what it is.
        model: in evaluation mode.
        images: float32 [B, 3, H, W] in [0, 1].
        labels: int64 [B], all different.
        gradients: of the mean loss, one for each parameter.
        start: where searches begin, [B, 3, H, W] normalised.
    """

    case: Case
    model: nn.Module
    images: Tensor
    labels: Tensor
    gradients: tuple[Tensor, ...]
    start: Tensor

    def problem(self) -> Problem:
        """Inverting Gradients' question."""
        shape, classes = tuple(self.images.shape[1:]), self.case.classes
        knowledge = Knowledge(
            self.model, F.cross_entropy, shape, classes, CIFAR10_MEAN, CIFAR10_STD, self.labels
        )
        return Problem(knowledge, self.gradients, Cosine(), [TotalVariation(TV)])

    def psnr(self, z: Tensor) -> float:
        """Of normalised pixels, mean over the batch, dB; place by place."""
        mean, std = (torch.tensor(v, device=z.device)[:, None, None] for v in (CIFAR10_MEAN, CIFAR10_STD))
        images = (z * std + mean).clamp(0, 1)
        return float((-10 * (images - self.images).square().mean((1, 2, 3)).log10()).mean())


def scene(case: Case, device: str, seed: int = 0) -> Scene:
    """The case with drawn weights and smooth random images, the same on every machine.

    Raises:
        InputError: for a batch larger than the number of classes, as no two labels are the same.
    """
    if case.batch > case.classes:
        raise InputError(f"{case}: labels are all different, and there are {case.classes} classes.")
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(case.batch, 3, case.size // 8, case.size // 8, generator=generator)
    images = F.interpolate(coarse, size=(case.size, case.size), mode="bicubic").clamp(0, 1)
    labels = torch.randperm(case.classes, generator=generator)[: case.batch].sort().values
    start = torch.randn(images.shape, generator=generator)
    model = network(case, images, seed)
    model, images, labels, start = (x.to(device) for x in (model, images, labels, start))
    gradients = torch.autograd.grad(F.cross_entropy(model(images), labels), list(model.parameters()))
    return Scene(case, model, images, labels, tuple(g.detach() for g in gradients), start)


def network(case: Case, images: Tensor, seed: int) -> nn.Module:
    """Drawn weights; batch norms hold the statistics of `images`, as activations would explode otherwise."""
    if "resnet" not in case.model:
        return build(case.model, case.classes, size=case.size, seed=seed)
    seen = build(case.model, case.classes, "bn", case.size, seed=seed).train()
    for module in seen.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        seen(images if len(images) > 1 else torch.cat([images, images.flip(3)]))
    model = build(case.model, case.classes, size=case.size, seed=seed)
    model.load_state_dict(seen.state_dict(), strict=False)
    return model


def with_batch_norm(model: nn.Module, case: Case) -> nn.Module:
    """The same network with PyTorch's own batch norm, in evaluation mode."""
    if "resnet" not in case.model:
        return copy.deepcopy(model)
    other = build(case.model, case.classes, "bn", case.size)
    other.load_state_dict(model.state_dict(), strict=False)
    return other.to(next(model.parameters()).device)


class AffineNorm(FrozenBatchNorm2d):
    """The same values by autograd's own products, whose double backward is cheaper than batch norm's."""

    def forward(self, x: Tensor) -> Tensor:
        """`x` [B, C, H, W], normalised."""
        scale = self.weight * torch.rsqrt(self.running_var + self.eps)
        return x * scale[:, None, None] + (self.bias - self.running_mean * scale)[:, None, None]


def with_affine_norm(model: nn.Module) -> nn.Module:
    """The same network with `AffineNorm`."""
    other = copy.deepcopy(model)
    for module in other.modules():
        if isinstance(module, FrozenBatchNorm2d):
            module.__class__ = AffineNorm
    return other

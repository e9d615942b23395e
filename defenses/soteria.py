"""Soteria: the representation before the last layer, less the features that tell least of the image."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from defenses.base import Aggregator, Gradients, defense, mean_gradient, read_shares
from defenses.checks import check_finite
from dpbench.protocol import InputError, Loss, Reading, Release, parameter

CHUNK = 64
"""Features whose Jacobians are computed together."""


@defense("soteria")
class Soteria(Aggregator):
    """Masks features of each sample in the gradient of the last fully connected layer (Sun et al. 2021).

    With r the input of that layer, the features with the smallest |dr_j / dx| / |r_j| are set to 0 where its
    weight's gradient is computed; all other gradients leave as they are. A feature that is 0 already hides
    nothing and is masked last. Nothing is random, no sensitivity is bounded: no guarantee.

    Attributes:
        soteria_ratio: share of the features that are masked, in [0, 1).

    Raises:
        InputError: for a ratio outside [0, 1).
    """

    soteria_ratio: float = parameter(
        0.5,
        "share of the last layer's input features that soteria masks",
        symbol="masked",
        at_least=0,
        below=1,
    )

    def aggregate(
        self, model: nn.Module, loss: Loss, images: Tensor, labels: Tensor, generator: torch.Generator
    ) -> Gradients:
        """The mean gradient with masked features; the generator is not used.

        Raises:
            InputError: for a model whose last fully connected layer is frozen, or takes no features [B, F].
        """
        gradients = list(mean_gradient(model, loss, images, labels))
        passed: list[tuple[nn.Module, Tensor, Tensor]] = []
        hooks = [
            layer.register_forward_hook(lambda layer, given, output: passed.append((layer, given[0], output)))
            for layer in model.modules()
            if isinstance(layer, nn.Linear)
        ]
        inputs = images.detach().clone().requires_grad_()
        try:
            with torch.enable_grad():
                value = loss(model(inputs), labels)
        finally:
            for hook in hooks:
                hook.remove()
        head, features, outputs = _last(passed)
        trained = (p for p in model.parameters() if p.requires_grad)
        place = next(i for i, p in enumerate(trained) if p is head.weight)
        (errors,) = torch.autograd.grad(value, [outputs], retain_graph=True, materialize_grads=True)
        kept = features.detach() * self._mask(features, inputs)
        gradients[place] = errors.T @ kept
        check_finite(gradients)
        return tuple(gradients)

    def aggregates(
        self,
        model: nn.Module,
        loss: Loss,
        images: Tensor,
        labels: Tensor,
        generator: torch.Generator,
        count: int,
    ) -> list[Gradients]:
        """The same gradient `count` times."""
        return [self.aggregate(model, loss, images, labels, generator)] * count

    def read(self, release: Release) -> Reading:
        """All but the masked columns of the last weight matrix.

        In a batch each sample has its own features masked, so that nothing is known of any column.
        """
        head = max(i for i, g in enumerate(release.gradients) if g.ndim == 2)
        shares = [torch.ones_like(g) for g in release.gradients]
        columns = (release.gradients[head] != 0).any(0) & (release.batch_size == 1)
        shares[head] = shares[head] * columns
        return read_shares(release, shares)

    def _mask(self, features: Tensor, images: Tensor) -> Tensor:
        """[B, F]: 0 for the features of each sample that tell least of it, else 1."""
        size = features.detach().abs()
        told = jacobian_norms(features, images) / size
        told = torch.where(size > 0, told, torch.inf)
        masked = told.argsort(dim=1, stable=True)[:, : round(self.soteria_ratio * features.shape[1])]
        return torch.ones_like(size).scatter(1, masked, 0.0)


def jacobian_norms(features: Tensor, images: Tensor) -> Tensor:
    """l2 norm of the derivative of each sample's features with respect to its own image.

    Args:
        features: [B, F], computed from `images`.
        images: [B, C, H, W], requiring gradients.

    Returns:
        [B, F]; samples that a batch norm mixes are taken together.
    """
    found = []
    for chosen in torch.arange(features.shape[1], device=features.device).split(CHUNK):
        one = torch.zeros(len(chosen), *features.shape, device=features.device, dtype=features.dtype)
        one[torch.arange(len(chosen)), :, chosen] = 1
        (jacobian,) = torch.autograd.grad(
            features, [images], one, is_grads_batched=True, retain_graph=True, materialize_grads=True
        )
        found.append(jacobian.flatten(2).norm(dim=2))
    return torch.cat(found).T


def _last(passed: list[tuple[nn.Module, Tensor, Tensor]]) -> tuple[nn.Module, Tensor, Tensor]:
    """The fully connected layer that ran last, its input and its output."""
    if not passed or not passed[-1][0].weight.requires_grad:
        raise InputError("soteria masks the input of a last fully connected layer: this model trains none.")
    head, features, outputs = passed[-1]
    if sum(layer is head for layer, _, _ in passed) > 1 or features.ndim != 2:
        raise InputError(
            "soteria needs a last fully connected layer that is used once, on features [B, F]: use another "
            "defence for this model."
        )
    return head, features, outputs

"""Per-sample gradients that are right, or refused.

Opacus' hooks are fast, but they see a layer's weight only where the layer itself uses it, take the first
dimension for the batch, and know zero padding only. So what they give is compared with plain backward passes
on the very batch. Where it disagrees, or where Opacus refuses a layer, functorch takes over, and after it one
backward pass for each sample.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from defenses.checks import check_finite
from defenses.per_sample.agreement import wrong_mean, wrong_single
from defenses.per_sample.errors import UnfitError, advice, owner
from defenses.per_sample.independence import check_independent
from defenses.per_sample.plain import by_functorch, by_loop
from dpbench.protocol import InputError, Loss

FEW = 4
"""Up to so many samples, taking each one's own gradient costs no more than checking Opacus'."""


@dataclass(frozen=True)
class PerSample:
    """Each sample's gradient.

    Attributes:
        gradients: [B, *shape] for each trainable parameter, in the model's order.
        method: what computed them: `opacus`, `functorch` or `loop`.
    """

    gradients: list[Tensor]
    method: str


def per_sample(model: nn.Module, loss: Loss, images: Tensor, labels: Tensor) -> PerSample:
    """The gradient of each sample's loss, checked.

    Args:
        model: in the mode the gradient is to be taken in; left untouched.
        loss: mean-reduced.
        images: float [B, C, H, W].
        labels: int64 [B], or soft labels [B, K].

    Raises:
        InputError: for a model that mixes samples (batch norm in training mode, say) or carries data from
            sample to sample in its buffers, for one whose gradients no method gets right, and for gradients
            that are not finite.
    """
    check_independent(model, images)
    names = [name for name, p in model.named_parameters() if p.requires_grad]
    failures: list[str] = []
    for method, of in _methods(len(images)):
        try:
            gradients = of(model, loss, images, labels)
        except UnfitError as error:
            failures.append(str(error))
            continue
        check_finite(gradients)
        # the hooks' were compared with autograd on the same forward pass already, the loop's are single ones
        wrong = None if method == "loop" else wrong_single(model, loss, images, labels, gradients)
        if wrong is None and method != "opacus" and len(images) > 1:
            wrong = wrong_mean(model, loss, images, labels, gradients)
        if wrong is None:
            return PerSample(gradients, method)
        failures.append(f"{owner(model, names[wrong])} has other gradients in a batch than alone ({method})")
    raise InputError(f"There are no per-sample gradients: {'; '.join(failures)}: {advice(model)}.")


def _methods(
    batch_size: int,
) -> list[tuple[str, Callable[[nn.Module, Loss, Tensor, Tensor], list[Tensor]]]]:
    if batch_size <= FEW:
        return [("loop", by_loop)]
    from defenses.per_sample.hooks import by_hooks  # Opacus takes seconds to import

    return [("opacus", by_hooks), ("functorch", by_functorch), ("loop", by_loop)]

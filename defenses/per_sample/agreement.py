"""Are per-sample gradients right? Checks against plain backward passes on the very batch.

Two comparisons, with two tolerances:

- The same forward pass, differentiated twice: Opacus' hooks against autograd, for all samples at once. The
  activations are the same ones, so only the order of summation differs (below 1e-6 in float32): `SAME_GRAPH`.
  What it lets pass moves a clipped gradient by at most 1e-4 C.
- Different forward passes, of one sample and of the batch. A ReLU input within rounding of zero may change
  its sign between them, which moved a gradient of a ResNet-20 by 4e-3, so the tolerance is wider:
  `OTHER_GRAPH`. It is there for models that mix samples or behave otherwise under hooks.

Both are relative to the gradient's l2 norm over all parameters. Where the victim is sure of a sample, the
derivative of its loss is the difference of nearly equal numbers: the tolerance grows by their rounding.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dpbench.protocol import Loss

SAME_GRAPH = 1e-4
OTHER_GRAPH = 1e-2
BLOCK = 128


def norms(gradients: Sequence[Tensor]) -> Tensor:
    """l2 norm of each sample's gradient over all tensors, float64 [B].

    Squares are summed in the tensors' own precision in blocks of 128 entries only, then in float64. A running
    sum in float32 over a layer of millions of entries, as Opacus takes it, is wrong by up to 1e-4.

    Args:
        gradients: tensors [B, ...].
    """
    parts = [piece for g in gradients for piece in _blocks(g.reshape(len(g), -1))]
    total = torch.cat(parts, 1).double().square().sum(1).sqrt()
    if bool(total.isfinite().all()):
        return total
    # squares overflow in float32 where the entries do not
    return torch.stack([g.reshape(len(g), -1).double().square().sum(1) for g in gradients]).sum(0).sqrt()


def _blocks(rows: Tensor) -> Iterable[Tensor]:
    whole = rows.shape[1] // BLOCK * BLOCK
    if whole:
        yield torch.linalg.vector_norm(rows[:, :whole].unflatten(1, (-1, BLOCK)), dim=2)
    if whole < rows.shape[1]:
        yield rows[:, whole:]


@dataclass(frozen=True)
class Own:
    """A plain backward pass.

    Attributes:
        gradients: of the mean loss, zeros for unused parameters.
        outputs: of the model, a row for each image.
        slope: norm of the loss's derivative with respect to the outputs.
    """

    gradients: tuple[Tensor, ...]
    outputs: Tensor
    slope: float


def own_gradient(model: nn.Module, loss: Loss, images: Tensor, labels: Tensor) -> Own:
    """The plain gradient of the mean loss over these images."""
    trainable = [p for p in model.parameters() if p.requires_grad]
    with torch.enable_grad():
        outputs = model(images)
        value = loss(outputs, labels)
    if not (value.requires_grad and outputs.requires_grad):
        return Own(tuple(torch.zeros_like(p) for p in trainable), outputs.detach(), 0.0)
    *found, slope = torch.autograd.grad(value, [*trainable, outputs], materialize_grads=True)
    return Own(tuple(found), outputs.detach(), float(slope.norm()))


def picks(batch_size: int) -> list[int]:
    """Which samples are compared one by one: the first, the last and the middle one."""
    return sorted({0, batch_size // 2, batch_size - 1})


def differing(
    found: Sequence[Tensor], expected: Sequence[Tensor], scale: float, tolerance: float
) -> int | None:
    """Index of the tensor that differs most, where all together differ by more than `tolerance * scale`."""
    errors = norms([(a - b)[None] for a, b in zip(found, expected, strict=True)])
    if float(errors) <= tolerance * scale:
        return None
    each = [float((a - b).double().norm()) for a, b in zip(found, expected, strict=True)]
    return max(range(len(each)), key=each.__getitem__)


def _tolerance(least: float, slope: float, dtype: torch.dtype) -> float:
    """`least`, or more where the loss's own derivative or a low precision is rounded more than that."""
    precision = torch.finfo(dtype).eps
    return max(least, 16 * precision) + (8 * precision / slope if slope else 0.0)


def wrong_single(own: Own, gradients: Sequence[Tensor]) -> int | None:
    """Index of the parameter at which a sample's gradient differs most from its own pass, or None."""
    scale = float(norms([g[None] for g in own.gradients]))
    tolerance = _tolerance(OTHER_GRAPH, own.slope, own.gradients[0].dtype)
    return differing(gradients, own.gradients, scale, tolerance)


def wrong_mean(own: Own, gradients: Sequence[Tensor]) -> int | None:
    """Index of the parameter at which the mean over the samples differs most from the batch's own pass.

    Args:
        own: of the whole batch.
        gradients: of each sample, [B, *shape].
    """
    scale = float(norms(gradients).norm()) / len(gradients[0])
    tolerance = _tolerance(OTHER_GRAPH, own.slope, own.gradients[0].dtype)
    return differing([g.mean(0) for g in gradients], own.gradients, scale, tolerance)

"""Are per-sample gradients right? Checks against plain backward passes on the very batch.

Two comparisons, with two tolerances:

- The same forward pass, differentiated twice: Opacus' hooks against autograd, for all samples at once. The
  activations are the same ones, so only the order of summation differs (below 1e-6 in float32): `SAME_GRAPH`.
  What it lets pass moves a clipped gradient by at most 1e-4 C.
- Different forward passes, of one sample and of the batch. A ReLU input within rounding of zero may change
  its sign between them, so the tolerance is wider: `OTHER_GRAPH`. The wrong gradients that were found in
  practice are 2 % off or more.

Both are relative to the gradient's l2 norm over all parameters. Where the victim is sure of a sample, the
derivative of its loss is the difference of nearly equal numbers: the tolerance grows by their rounding.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from dpbench.protocol import Loss

SAME_GRAPH = 1e-4
OTHER_GRAPH = 1e-3
MEAN = 1e-2
"""Of the mean over the batch, relative to the root of the sum of the squared norms: wide, as it is there to
find models that mix samples."""
BLOCK = 128


def norms(gradients: Sequence[Tensor]) -> Tensor:
    """l2 norm of each sample's gradient over all tensors, float64 [B].

    Squares are summed in the tensors' own precision in blocks of 128 entries only, then in float64. A running
    sum in float32 over a layer of millions of entries, as Opacus takes it, is wrong by up to 1e-4.

    Args:
        gradients: tensors [B, ...].
    """
    parts = [piece for g in gradients for piece in _blocks(g.reshape(len(g), -1))]
    total = torch.stack([p.double().square().sum(1) for p in parts]).sum(0).sqrt()
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


def own_gradient(
    model: nn.Module, loss: Loss, images: Tensor, labels: Tensor
) -> tuple[tuple[Tensor, ...], float]:
    """The plain gradient of the mean loss, zeros for unused parameters, and the norm of dloss/doutputs."""
    trainable = [p for p in model.parameters() if p.requires_grad]
    with torch.enable_grad():
        outputs = model(images)
        value = loss(outputs, labels)
    if not value.requires_grad:
        return tuple(torch.zeros_like(p) for p in trainable), 0.0
    found = torch.autograd.grad(
        value, [*trainable, outputs] if outputs.requires_grad else trainable, materialize_grads=True
    )
    slope = float(found[-1].norm()) if outputs.requires_grad else 0.0
    return found[: len(trainable)], slope


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


def wrong_single(
    model: nn.Module, loss: Loss, images: Tensor, labels: Tensor, gradients: Sequence[Tensor]
) -> int | None:
    """Index of the parameter at which a single sample disagrees most with its own backward pass, or None."""
    for i in picks(len(images)):
        own, slope = own_gradient(model, loss, images[i : i + 1], labels[i : i + 1])
        scale = float(norms([g[None] for g in own]))
        tolerance = _tolerance(OTHER_GRAPH, slope, own[0].dtype)
        worst = differing([g[i] for g in gradients], own, scale, tolerance)
        if worst is not None:
            return worst
    return None


def wrong_mean(
    model: nn.Module, loss: Loss, images: Tensor, labels: Tensor, gradients: Sequence[Tensor]
) -> int | None:
    """Index of the parameter at which the mean over the samples differs most from the gradient, or None."""
    own, slope = own_gradient(model, loss, images, labels)
    scale = float(norms(gradients).norm()) / len(images)
    tolerance = _tolerance(MEAN, slope, own[0].dtype)
    return differing([g.mean(0) for g in gradients], own, scale, tolerance)

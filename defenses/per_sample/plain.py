"""Per-sample gradients without hooks: by functorch, or one backward pass for each sample."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.func import vmap

from defenses.per_sample.agreement import Own, own_gradient
from defenses.per_sample.errors import UnfitError, culprit, in_brief, owner
from dpbench.protocol import Loss, functional_call

CHUNK = 8
"""Samples whose activations are held at a time."""


def by_functorch(model: nn.Module, loss: Loss, images: Tensor, labels: Tensor) -> tuple[list[Tensor], Tensor]:
    """[B, *shape] for each trainable parameter, and the model's outputs, each sample as a batch of its own.

    Every sample has weights of its own, all of the same values, and `vmap` runs all samples at once. One
    backward pass then gives each sample's gradient: it is that of the sample's own weights.

    Raises:
        UnfitError: for a model that `vmap` cannot trace, or that reaches its weights by another way.
    """
    names, trainable = zip(*((n, p) for n, p in model.named_parameters() if p.requires_grad), strict=True)

    def of_one(weights: list[Tensor], image: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        outputs = functional_call(model, dict(zip(names, weights, strict=True)), (image[None],))
        return loss(outputs, label[None]), outputs[0]

    found, outputs = [], []
    for some, known in zip(images.split(CHUNK), labels.split(CHUNK), strict=True):
        own = [p.detach().expand(len(some), *p.shape).requires_grad_() for p in trainable]
        try:
            with (
                warnings.catch_warnings(),
                torch.enable_grad(),
                _differentiable_attention(),
                _made_for_vmap(model),
            ):
                # a slow way is still a way
                warnings.filterwarnings("ignore", message="There is a performance drop")
                values, seen = vmap(of_one)(own, some, known)
                each = torch.autograd.grad(values.sum(), [*own, *trainable], allow_unused=True)
        except Exception as error:  # whatever functorch cannot trace
            raise UnfitError(f"functorch refuses {culprit(error, model)}: {in_brief(error)}") from error
        for name, missed in zip(names, each[len(own) :], strict=True):
            if missed is not None:
                raise UnfitError(f"{owner(model, name)} uses {name} by a way that functorch misses")
        found.append([torch.zeros_like(p) if g is None else g for p, g in zip(own, each, strict=False)])
        outputs.append(seen.detach())
    if len(found) == 1:
        return found[0], outputs[0]
    return [torch.cat(parts) for parts in zip(*found, strict=True)], torch.cat(outputs)


@contextmanager
def _made_for_vmap(model: nn.Module) -> Iterator[None]:
    """On a CPU, modules with `under_vmap(x)` run it for `forward(x)`: it gives the same in less time.

    Not where a subclass has a `forward` of its own. If it gives something else, that shows when the gradients
    are compared with plain passes.
    """
    on_cpu = next(model.parameters()).device.type == "cpu"
    changed = [m for m in model.modules() if on_cpu and "forward" not in vars(m) and _made_alike(type(m))]
    for module in changed:
        module.forward = module.under_vmap
    try:
        yield
    finally:
        for module in changed:
            del module.forward


def _made_alike(kind: type[nn.Module]) -> bool:
    """Whether `forward` and `under_vmap` are of the same class."""
    owners = [next((c for c in kind.__mro__ if name in vars(c)), None) for name in ("forward", "under_vmap")]
    return owners[0] is owners[1] is not None


@contextmanager
def _differentiable_attention() -> Iterator[None]:
    """`nn.MultiheadAttention` off its fast path: it does not see that weights under `vmap` need gradients."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def one_by_one(
    model: nn.Module, loss: Loss, images: Tensor, labels: Tensor, rows: Sequence[int]
) -> list[Own]:
    """A backward pass for each of these images alone.

    Raises:
        UnfitError: for a model or a loss that cannot take a batch of one.
    """
    try:
        return [own_gradient(model, loss, images[i : i + 1], labels[i : i + 1]) for i in rows]
    except Exception as error:  # whatever the model stumbles over
        raise UnfitError(f"{culprit(error, model)} fails on a single image: {in_brief(error)}") from error

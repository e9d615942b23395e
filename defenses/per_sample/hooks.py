"""Per-sample gradients by Opacus' hooks, compared with autograd on the very same forward pass."""

from __future__ import annotations

import warnings

import torch
from opacus.grad_sample import GradSampleModule, register_grad_sampler
from torch import Tensor, nn

from defenses.checks import check_finite
from defenses.copies import untouched
from defenses.per_sample.agreement import SAME_GRAPH, differing, norms
from defenses.per_sample.errors import RefusedError, UnfitError, culprit, in_brief, owner
from dpbench.protocol import Loss


def by_hooks(model: nn.Module, loss: Loss, images: Tensor, labels: Tensor) -> tuple[list[Tensor], Tensor]:
    """[B, *shape] for each trainable parameter, and the model's outputs.

    Parameters that the loss does not depend on have a view of zeros.

    Args:
        model: in the mode the gradient is to be taken in; left untouched.
        loss: mean-reduced.
        images: float [B, C, H, W].
        labels: int64 [B].

    Raises:
        UnfitError: for a model that Opacus stumbles over, or whose gradients it gets wrong.
        InputError: for gradients that are not finite.
    """
    for whole in (False, True):
        copy = untouched(model)
        _prepare(copy)
        wrapped = None
        try:
            wrapped = GradSampleModule(copy, loss_reduction="mean", strict=False)
            plain, weights, outputs = _differentiated(wrapped, loss, images, labels, whole)
        except Exception as error:  # whatever Opacus stumbles over
            raise RefusedError(f"Opacus refuses {culprit(error, copy)}: {in_brief(error)}") from error
        finally:
            if wrapped is not None:
                wrapped.remove_hooks()
        named = [(name, p) for name, p in copy.named_parameters() if p.requires_grad]
        gradients = [_filled(p, g, len(images)) for (_, p), g in zip(named, plain, strict=True)]
        missing = [name for (name, _), g in zip(named, gradients, strict=True) if g is None]
        if not missing:
            break
    if missing:
        raise UnfitError(f"Opacus takes no per-sample gradient of {owner(copy, missing[0])}")
    found = [torch.tensordot(weights.to(g), g, 1) for g in gradients]
    expected = [torch.zeros_like(p) if g is None else g for (_, p), g in zip(named, plain, strict=True)]
    scale = float((weights.double() * norms(gradients)).norm())
    worst = differing(found, expected, scale, SAME_GRAPH)
    if worst is not None:
        check_finite(gradients)
        raise UnfitError(f"Opacus' per-sample gradients of {owner(copy, named[worst][0])} are wrong")
    return gradients, outputs


def _prepare(model: nn.Module) -> None:
    """Evaluation mode, as Opacus wants it."""
    model.eval()
    for module in model.modules():
        if hasattr(module, "normalised") and type(module) not in GradSampleModule.GRAD_SAMPLERS:
            register_grad_sampler(type(module))(_affine_grad_sample)
        # Opacus records modules in training mode only; those that own no parameter (dropout) stay off.
        module.training = any(p.requires_grad for p in module.parameters(recurse=False))
        if getattr(module, "inplace", False) is True:  # a view that a backward hook made must not be changed
            module.inplace = False


def _differentiated(
    wrapped: GradSampleModule, loss: Loss, images: Tensor, labels: Tensor, whole: bool
) -> tuple[list[Tensor | None], Tensor, Tensor]:
    """Fills the parameters' `grad_sample`; returns what they add up to, with which weights, and outputs.

    The weights are different for each sample, so that a gradient which went to another sample shows as well.
    A sample of small loss gets a large weight, up to a limit, as its gradient is small, too.

    Opacus' hooks sit on the way from the loss back to the images. Unless `whole`, nothing else is computed:
    the parameters' own gradients of the mean loss are a third of a backward pass. Modules off that way, as
    behind a trunk without gradients, then stay empty.
    """
    seen = images.detach().requires_grad_(not whole)
    trainable = [p for p in wrapped.parameters() if p.requires_grad]
    with warnings.catch_warnings(), torch.enable_grad():
        # the first layer's input needs no gradient of its own: what the hook then misses is not used here
        warnings.filterwarnings("ignore", message="Full backward hook is firing")
        warnings.filterwarnings("ignore", message="There is a performance drop")
        outputs = wrapped(seen)
        single = torch.stack([loss(outputs[i : i + 1], labels[i : i + 1]) for i in range(len(images))])
        (slopes,) = torch.autograd.grad(single.sum(), outputs, retain_graph=True)
        weights = _spread(len(images)).to(single) / (slopes.reshape(len(images), -1).norm(dim=1) + 1e-3)
        wrapped.disable_hooks()
        plain = torch.autograd.grad(single @ weights, trainable, retain_graph=True, allow_unused=True)
        wrapped.enable_hooks()
        value = loss(outputs, labels)
        if whole:
            value.backward()
        else:
            torch.autograd.grad(value, seen, allow_unused=True)
    return list(plain), weights, outputs.detach()


def _spread(count: int) -> Tensor:
    """`count` different numbers of either sign, of magnitude 1 to 2; the same ones every time."""
    steps = torch.arange(count, dtype=torch.float64) * 0.6180339887498949 % 1
    return (1 + steps) * (1 - 2 * (torch.arange(count) % 2))


def _filled(parameter: nn.Parameter, plain: Tensor | None, batch_size: int) -> Tensor | None:
    """The per-sample gradients; zeros where autograd knows none, None where Opacus missed them."""
    found = getattr(parameter, "grad_sample", None)
    if found is None and plain is None:
        return parameter.detach().new_zeros(()).expand(batch_size, *parameter.shape)
    if not isinstance(found, Tensor) or found.shape != (batch_size, *parameter.shape):
        return None
    return found


def _affine_grad_sample(
    layer: nn.Module, activations: list[Tensor], backprops: Tensor
) -> dict[nn.Parameter, Tensor]:
    """Per-sample gradients [B, C] of y = weight * normalised(x) + bias, per channel."""
    return {
        layer.weight: (backprops * layer.normalised(activations[0])).flatten(2).sum(2),
        layer.bias: backprops.flatten(2).sum(2),
    }

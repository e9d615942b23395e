"""Per-sample gradients by Opacus' hooks, on a copy, where each sample has a gradient of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from opacus.grad_sample import GradSampleModule, register_grad_sampler
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from defenses.checks import check_finite, check_independent, untouched
from dpbench.protocol import InputError, Loss

ADVICE = "replace it, or use a defence that does not clip each sample"


@contextmanager
def per_sample(model: nn.Module, loss: Loss, images: Tensor, labels: Tensor) -> Iterator[list[nn.Parameter]]:
    """The trainable parameters of a copy of `model`, each with its `grad_sample` [B, *shape].

    Dropout stays off. Modules with a method `normalised` (frozen batch norms) may own buffers, others not.

    Raises:
        InputError: for training-mode batch norm, a trainable module with buffers, one that Opacus cannot
            handle, a parameter that gets no gradient, a model that mixes samples, or infinite gradients.
    """
    copy = untouched(model)
    _refuse_unsupported(copy)
    copy.eval()
    check_independent(copy, images)
    for module in copy.modules():
        if hasattr(module, "normalised") and type(module) not in GradSampleModule.GRAD_SAMPLERS:
            register_grad_sampler(type(module))(_affine_grad_sample)
        # Opacus records modules in training mode only; those that own no parameter (dropout) stay off.
        module.training = any(p.requires_grad for p in module.parameters(recurse=False))
    wrapped = None
    try:
        with torch.enable_grad():
            wrapped = GradSampleModule(copy, loss_reduction="mean", strict=False)
            # Opacus' hooks sit on the way back to the images; the parameters' own gradients, a third of a
            # backward pass, are not computed as nobody asks for them.
            seen = images.detach().requires_grad_()
            torch.autograd.grad(loss(wrapped(seen), labels), seen)
    except (RuntimeError, NotImplementedError, ValueError, TypeError, IndexError) as error:
        raise InputError(
            f"Opacus cannot take per-sample gradients of {_culprit(error, copy)}: {ADVICE} "
            f"({str(error).splitlines()[0][:120]})."
        ) from error
    for name, parameter in copy.named_parameters():
        if parameter.requires_grad and not _has_one_gradient_per_sample(parameter, len(images)):
            raise InputError(
                f"Parameter {name} got no per-sample gradient from Opacus, so it cannot be clipped: "
                "remove it or set its requires_grad to False."
            )
    trainable = [p for p in copy.parameters() if p.requires_grad]
    check_finite(p.grad_sample for p in trainable)
    try:
        yield trainable
    finally:
        wrapped.remove_hooks()


def _affine_grad_sample(
    layer: nn.Module, activations: list[Tensor], backprops: Tensor
) -> dict[nn.Parameter, Tensor]:
    """Per-sample gradients [B, C] of y = weight * normalised(x) + bias, per channel."""
    return {
        layer.weight: (backprops * layer.normalised(activations[0])).flatten(2).sum(2),
        layer.bias: backprops.flatten(2).sum(2),
    }


def _refuse_unsupported(model: nn.Module) -> None:
    for name, module in model.named_modules():
        trainable = any(p.requires_grad for p in module.parameters(recurse=False))
        if isinstance(module, _BatchNorm) and (module.training or module.running_mean is None):
            raise InputError(
                f"{name or 'The model'} is batch norm in training mode, which mixes the samples of a batch: "
                "use frozen statistics (--norm frozen-bn) or group norm (--norm gn)."
            )
        if isinstance(module, _BatchNorm) and trainable:
            raise InputError(
                f"Opacus takes no per-sample gradients of {name or 'the model'} ({type(module).__name__}), "
                "even in evaluation mode: use dpbench's FrozenBatchNorm2d (--norm frozen-bn) or group norm "
                "(--norm gn)."
            )
        buffered = any(True for _ in module.buffers(recurse=False))
        if trainable and buffered and not hasattr(module, "normalised"):
            raise InputError(
                f"Module {name or 'the model'} ({type(module).__name__}) is trainable and has buffers, which "
                f"may carry data from sample to sample: {ADVICE}."
            )


def _culprit(error: BaseException, model: nn.Module) -> str:
    """The innermost module of `model` that was at work when `error` was raised."""
    names = {id(module): name for name, module in model.named_modules()}
    found, trace = "a module of this model", error.__traceback__
    while trace is not None:
        for variable in ("self", "module", "layer"):
            module = trace.tb_frame.f_locals.get(variable)
            if isinstance(module, nn.Module) and names.get(id(module)):
                found = f"{names[id(module)]} ({type(module).__name__})"
        trace = trace.tb_next
    return found


def _has_one_gradient_per_sample(parameter: nn.Parameter, batch_size: int) -> bool:
    gradient = parameter.grad_sample
    return isinstance(gradient, Tensor) and gradient.shape == (batch_size, *parameter.shape)

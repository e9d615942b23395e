"""Per-sample gradients by Opacus' hooks, on a copy, where each sample has a gradient of its own."""

from __future__ import annotations

import warnings
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
    _refuse_unsupported(model)
    check_independent(untouched(model).eval(), images)
    for whole in (False, True):
        copy = untouched(model)
        try:
            wrapped = _differentiated(copy, loss, images, labels, whole)
        except (RuntimeError, NotImplementedError, ValueError, TypeError, IndexError) as error:
            raise InputError(
                f"Opacus cannot take per-sample gradients of {_culprit(error, copy)}: {ADVICE} "
                f"({str(error).splitlines()[0][:120]})."
            ) from error
        without = [
            name
            for name, parameter in copy.named_parameters()
            if parameter.requires_grad and not _has_one_gradient_per_sample(parameter, len(images))
        ]
        if not without:
            break
    if without:
        raise InputError(
            f"Parameter {without[0]} got no per-sample gradient from Opacus, so it cannot be clipped: "
            "remove it or set its requires_grad to False."
        )
    trainable = [p for p in copy.parameters() if p.requires_grad]
    check_finite(p.grad_sample for p in trainable)
    try:
        yield trainable
    finally:
        wrapped.remove_hooks()


def _differentiated(
    model: nn.Module, loss: Loss, images: Tensor, labels: Tensor, whole: bool
) -> GradSampleModule:
    """`model` wrapped, after a backward pass that filled its parameters' `grad_sample`.

    Opacus' hooks sit on the way from the loss back to the images. Unless `whole`, nothing else is computed:
    the parameters' own gradients, which nobody looks at, are a third of a backward pass. Modules off that
    way, as behind a trunk without gradients, then stay empty.
    """
    model.eval()
    for module in model.modules():
        if hasattr(module, "normalised") and type(module) not in GradSampleModule.GRAD_SAMPLERS:
            register_grad_sampler(type(module))(_affine_grad_sample)
        # Opacus records modules in training mode only; those that own no parameter (dropout) stay off.
        module.training = any(p.requires_grad for p in module.parameters(recurse=False))
    wrapped = GradSampleModule(model, loss_reduction="mean", strict=False)
    seen = images.detach().requires_grad_(not whole)
    with warnings.catch_warnings(), torch.enable_grad():
        # the first layer's input needs no gradient of its own: what the hook then misses is not used here
        warnings.filterwarnings("ignore", message="Full backward hook is firing")
        value = loss(wrapped(seen), labels)
        if whole:
            value.backward()
        else:
            torch.autograd.grad(value, seen, allow_unused=True)
    return wrapped


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
                "use frozen statistics (`norm` frozen-bn) or group norm (`norm` gn)."
            )
        if isinstance(module, _BatchNorm) and trainable:
            raise InputError(
                f"Opacus takes no per-sample gradients of {name or 'the model'} ({type(module).__name__}), "
                "even in evaluation mode: use dpbench's FrozenBatchNorm2d (`norm` frozen-bn) or group norm "
                "(`norm` gn)."
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

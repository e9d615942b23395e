"""Lets a classifier return logits [B, K], whatever it returns by itself, by hooks."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parameter import is_lazy

from dpbench.protocol import InputError, Loss
from dpbench.victim.outputs import TwoLogits, logits_among, single_logit_loss


def fit(model: nn.Module, loss: Loss, images: Tensor) -> Loss:
    """Hooks `model` so that it returns logits [B, K], and gives the loss of these.

    One forward hook picks the logits out of what the model returns. One for a single logit makes two of it;
    its usual loss is the binary cross-entropy. A model that changes images in place gets a copy of them.
    LSTMs and the like do without cuDNN, whose backward pass is for training mode only and has no derivative.
    Batch and instance norm get the gradient of a single image in order (`_in_order`).

    Args:
        model: changed in place.
        loss: mean-reduced, of what the model returns.
        images: [B, C, H, W], what it is to take.

    Raises:
        InputError: for a model that does not take the images, whose output is no or several logits, or whose
            loss does not take a single logit.
    """
    check_weights(model)
    for module in model.modules():
        if isinstance(module, nn.RNNBase):
            module.register_forward_pre_hook(_cudnn_off)
            module.register_forward_hook(_cudnn_as_before, always_call=True)
        if isinstance(module, nn.modules.batchnorm._NormBase):
            module.register_forward_hook(_in_order)
    output, changes = run(model, images)
    _check_graph(model, images)
    if changes:
        model.register_forward_pre_hook(_cloned)
    if (pick := logits_among(output, len(images))) is not None:
        model.register_forward_hook(pick)
        output = pick(model, (images,), output)
    if output.numel() == len(output) == len(images) and output.ndim in (1, 2):
        model.register_forward_hook(TwoLogits())
        given = F.binary_cross_entropy_with_logits if loss is F.cross_entropy else loss
        loss = single_logit_loss(given, flat=output.ndim == 1)
    return loss


def check_weights(model: nn.Module) -> None:
    """InputError for weights that do not exist yet, and for complex ones, which attacks do not know."""
    lazy = [
        type(module).__name__
        for module in model.modules()
        if any(map(is_lazy, (*module.parameters(recurse=False), *module.buffers(recurse=False))))
    ]
    if lazy:
        raise InputError(f"The model's {lazy[0]} has no weights yet: run the model once on images before.")
    for name, each in (*model.named_parameters(), *model.named_buffers()):
        if each.is_meta:
            raise InputError(f"The model's {name} is on the meta device, without values: load its weights.")
        if each.is_complex():
            raise InputError(f"The model's {name} is complex: give real weights, such as its two parts.")


def outputs(model: nn.Module, images: Tensor) -> int:
    """K, the number of the model's logits.

    Raises:
        InputError: for a model that does not take the images, or returns anything but logits.
    """
    logits, _ = run(model, images)
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != len(images):
        raise InputError("The model must return logits [B, K], one row for each image.")
    return logits.shape[1]


def run(model: nn.Module, images: Tensor) -> tuple[object, bool]:
    """What a copy of `model` returns, and whether it changes its input in place.

    Raises:
        InputError: for a model that does not take the images.
    """
    given = images.clone()
    before = given._version
    try:
        with torch.no_grad():
            output = copy.deepcopy(model)(given)
    except Exception as error:  # whatever the author of the model got wrong
        raise InputError(
            f"The model does not take images of shape {tuple(images.shape)}: {' '.join(str(error).split())}"
        ) from error
    return output, given._version != before


def _check_graph(model: nn.Module, images: Tensor) -> None:
    """InputError where no gradient comes back from what `model`, which takes `images`, returns."""
    with torch.enable_grad():
        output = copy.deepcopy(model)(images.clone())
    if isinstance(output, Mapping):
        output = list(output.values())
    parts = output if isinstance(output, tuple | list) else [getattr(output, "logits", output)]
    tensors = [part for part in parts if isinstance(part, Tensor)]
    if tensors and not any(part.requires_grad for part in tensors):
        raise InputError(
            "The model's output has no gradient: take out torch.no_grad(), detach() or whatever else stops "
            "it."
        )


def _cudnn_off(module: nn.Module, _: object) -> None:
    module.cudnn_before = torch.backends.cudnn.enabled
    torch.backends.cudnn.enabled = False


def _cudnn_as_before(module: nn.Module, *_: object) -> None:
    torch.backends.cudnn.enabled = module.cudnn_before


def _in_order(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    """Makes the gradient of one image contiguous: PyTorch 2.14 shuffles it on a CPU where channels are last.

    So they are where a feature map becomes tokens (`flatten(2).transpose(1, 2)`). Compiled programs have a
    backward pass of their own.
    """
    if not isinstance(output, Tensor) or torch.compiler.is_compiling() or not output.requires_grad:
        return
    if len(output) == 1 and output.is_contiguous() and not output.is_cuda:
        output.register_hook(Tensor.contiguous)


def _cloned(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Forward pre-hook of a model that would overwrite its input."""
    return (inputs[0].clone(), *inputs[1:])

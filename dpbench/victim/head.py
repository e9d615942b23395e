"""The last layer of a victim, and victims that are trained in part (transfer learning)."""

from __future__ import annotations

import copy

from torch import nn

from dpbench.protocol import InputError, meant

ALL, HEAD, PLUS = "all", "head", "+"
"""What `trainable` says of the whole model and of its last layer, and what joins several parts."""


def head(model: nn.Module, num_classes: int) -> str | None:
    """The name of the last fully connected layer with an output for each class and a bias; None without."""
    found = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module.out_features == num_classes and module.bias is not None
    ]
    return found[-1] if found else None


def trained_in_part(model: nn.Module, num_classes: int, trainable: str) -> nn.Module:
    """A copy of which only some parts are trained; the gradients of all others are not sent.

    Args:
        model: the victim.
        num_classes: K.
        trainable: the parts, joined by `+`: `head`, the last layer, or names of modules and parameters.

    Raises:
        InputError: where the model has no such part, or one without parameters.

    Example:
        >>> model = nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 3))
        >>> in_part = trained_in_part(model, 3, "head+0.bias")
        >>> [name for name, p in in_part.named_parameters() if p.requires_grad]
        ['0.bias', '2.weight', '2.bias']
    """
    model = copy.deepcopy(model).requires_grad_(False)
    named = dict(model.named_modules()) | dict(model.named_parameters())
    for part in trainable.split(PLUS):
        name = head(model, num_classes) if part == HEAD else part
        if name is None:
            raise InputError(
                f"`trainable` head needs a last, fully connected layer with {num_classes} outputs and a "
                "bias, which this model lacks: leave it out, or freeze layers where the model is made."
            )
        if not name or name not in named:
            first = ", ".join(child for child, _ in model.named_children())
            raise InputError(
                f"`trainable` is all, head, or names of the model's parts joined by +, and it has no {part!r}"
                f"{meant(part, named)}: at its top are {first}."
            )
        if isinstance(named[name], nn.Module) and not any(True for _ in named[name].parameters()):
            raise InputError(f"`trainable` {part} has no parameters: give another part of the model.")
        named[name].requires_grad_(True)
    return model

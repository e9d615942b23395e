"""The last layer of a victim, and victims of which nothing else is trained (transfer learning)."""

from __future__ import annotations

import copy

from torch import nn

from dpbench.protocol import InputError


def head(model: nn.Module, num_classes: int) -> str | None:
    """The name of the last fully connected layer with an output for each class and a bias; None without."""
    found = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module.out_features == num_classes and module.bias is not None
    ]
    return found[-1] if found else None


def head_alone(model: nn.Module, num_classes: int) -> nn.Module:
    """A copy of which the last layer alone is trained; the gradients of all others are not sent.

    Args:
        model: the victim.
        num_classes: K.

    Raises:
        InputError: where it has no such layer.

    Example:
        >>> model = head_alone(nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 3)), 3)
        >>> [name for name, p in model.named_parameters() if p.requires_grad]
        ['2.weight', '2.bias']
    """
    name = head(model, num_classes)
    if name is None:
        raise InputError(
            f"`trainable` head needs a last, fully connected layer with {num_classes} outputs and a bias, "
            "which this model lacks: leave it out, or freeze layers where the model is made."
        )
    model = copy.deepcopy(model).requires_grad_(False)
    model.get_submodule(name).requires_grad_(True)
    return model

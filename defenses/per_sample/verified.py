"""Which models and losses had right gradients before, on a batch of the same shape.

A model with other weights is another one: a layer that mixes samples may do so only once it has learnt to.
"""

from __future__ import annotations

from collections.abc import Hashable

import torch
from torch import Tensor, nn

from dpbench.protocol import Loss

_INNER = vars(nn.Module()).keys() - {"training"}
"""Attributes of every module: containers of tensors, modules and hooks."""
_TENSORS = ("_parameters", "_buffers")
_verified: set[int] = set()


def is_new(model: nn.Module, loss: Loss, images: Tensor, labels: Tensor) -> bool:
    """Whether these were not verified in this process, whatever the numbers of the batch."""
    return _key(model, loss, images, labels) not in _verified


def remember(model: nn.Module, loss: Loss, images: Tensor, labels: Tensor) -> None:
    """Their gradients are right."""
    _verified.add(_key(model, loss, images, labels))


def _key(model: nn.Module, loss: Loss, images: Tensor, labels: Tensor) -> int:
    modules = tuple(map(_module, model.modules()))
    return hash((modules, _sums(model), _tensor(images), _tensor(labels), _value(loss)))


def _sums(model: nn.Module) -> Hashable:
    """A number for each tensor, which tells weights apart at the price of reading them once."""
    with torch.no_grad():
        sums = [tensor.sum(dtype=torch.float64) for tensor in (*model.parameters(), *model.buffers())]
    return tuple(torch.stack(sums).tolist()) if sums else ()


def _module(module: nn.Module) -> Hashable:
    inner = vars(module)
    tensors = [(k, t) for kind in _TENSORS for k, t in inner[kind].items()]
    return (
        type(module),
        tuple((k, _value(v)) for k, v in inner.items() if k not in _INNER),
        tuple((k, t is not None and _tensor(t)) for k, t in tensors),
        tuple(inner["_modules"].keys()),  # TorchScript's can be listed in no other way
    )


def _tensor(tensor: Tensor) -> Hashable:
    return tensor.shape, tensor.dtype, tensor.device, tensor.requires_grad


def _value(attribute: object) -> Hashable:
    """Tensors by address, which is another one in every copy, so that nothing is taken for verified."""
    return id(attribute) if isinstance(attribute, Tensor) else repr(attribute)

"""Which released gradients are those of the layer that gives the logits.

Its weight has a row for each class. Another matrix may have as many: LoRA of rank 10 in a model of 10
classes, or a gate of as many channels, which stands behind the head in the model's list. Or it is what the
weight is computed from, as under spectral norm. So there, and where a part of the model is frozen, the model
is asked.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from dpbench.protocol import InputError, Knowledge, Release, functional_call

SAME = 1e-3
"""Relative difference, in float32, of what should be equal."""
Names = tuple[str | None, str | None]


def output_layer(release: Release, knowledge: Knowledge) -> Names:
    """Names of its weight [K, features] and bias [K], None for one that was not sent.

    Two classes may share a single logit z, which stands for the logits (0, z); then both have one row.

    Raises:
        InputError: where neither was sent.
    """
    classes = knowledge.num_classes
    rows = (1, 2) if classes == 2 else (classes,)
    shapes = {name: g.shape for name, g in zip(release.names, release.gradients, strict=True)}
    weights = [name for name, shape in shapes.items() if len(shape) == 2 and shape[0] in rows]
    biases = [name for name, shape in shapes.items() if len(shape) == 1 and shape[0] in rows]
    fit = [*weights, *biases]
    frozen = not all(p.requires_grad for p in knowledge.model.parameters())
    if fit and (frozen or not weights):
        adding = of_logits(knowledge, fit)
        weights, biases = ([n for n in names if n in adding] for names in (weights, biases))
    elif weights and not (len(weights) == 1 and _of_linear(knowledge.model, weights[0])):
        adding = of_logits(knowledge, fit) or fit  # none where logits are capped behind the head
        weights, biases = ([n for n in names if n in adding] for names in (weights, biases))
    if not weights and not biases:
        kind = "trained layer that adds to the logits" if frozen else "fully connected layer"
        raise InputError(f"No {kind} with {classes} outputs to read labels from; use `labels` known.")
    if not weights:
        return None, biases[-1]
    pairs = [name for name in weights if bias_of(name) in biases]
    weight = (pairs or weights)[-1] if frozen else weights[-1]
    if bias_of(weight) in biases:
        return weight, bias_of(weight)
    return weight, biases[-1] if frozen and biases else None


def bias_of(weight: str) -> str:
    """The name of the bias beside a weight, if there is one.

    Example:
        >>> bias_of("fc.weight")
        'fc.bias'
    """
    return f"{weight.removesuffix('weight')}bias"


def _of_linear(model: torch.nn.Module, weight: str) -> bool:
    """Whether it is the weight of a fully connected layer of PyTorch's, as it is used."""
    owner, _, name = weight.rpartition(".")
    return type(model.get_submodule(owner)) is torch.nn.Linear and name == "weight"


def of_logits(knowledge: Knowledge, names: list[str]) -> set[str]:
    """Those parameters that add to the logits by themselves.

    For a cotangent c [K] of the logits, the gradient of such a weight is c times a row of features, and that
    of a bias a multiple of c. One row alone is always a multiple of one number: there it has to be the same
    for other weights, as what adds to a logit is linear.

    Raises:
        InputError: where layers are in TorchScript, whose weights cannot be replaced.
    """
    if any(isinstance(module, torch.jit.ScriptModule) for module in knowledge.model.modules()):
        raise InputError(
            "TorchScript hides the layer that gives the logits: give the module that it was made of."
        )
    # deepcopy refuses what a forward pass leaves of weights that are computed in it, as under spectral norm
    attributes = (each for module in knowledge.model.modules() for each in vars(module).values())
    left = {id(t): t.detach() for t in attributes if isinstance(t, Tensor) and t.grad_fn is not None}
    model = copy.deepcopy(knowledge.model, left).requires_grad_(False)
    held = {name: model.get_parameter(name) for name in names}
    like, random = next(model.parameters()), torch.Generator().manual_seed(0)
    images = torch.rand(2, *knowledge.image_shape, generator=random).to(like)
    cotangent = torch.randn(knowledge.num_classes, generator=random).to(like)
    moved = {name: p + torch.randn(p.shape, generator=random).to(like) for name, p in held.items()}
    first, second = (_gradients(model, each, images, cotangent) for each in (held, moved))
    return {n for n in names if _adds(first[n], second[n], cotangent)}


def _gradients(
    model: torch.nn.Module, weights: dict[str, Tensor], images: Tensor, cotangent: Tensor
) -> dict[str, Tensor]:
    weights = {name: p.detach().requires_grad_() for name, p in weights.items()}
    with torch.enable_grad():
        logits = functional_call(model, weights, (images,))[
            :, : len(cotangent)
        ]  # `precode` has a divergence, too
        found = torch.autograd.grad(
            (logits * cotangent).sum(), list(weights.values()), materialize_grads=True
        )
    return dict(zip(weights, found, strict=True))


def _adds(gradient: Tensor, elsewhere: Tensor, cotangent: Tensor) -> bool:
    size = gradient.norm()
    if not bool(size > 0):
        return False
    if len(gradient) == 1:
        return bool((gradient - elsewhere).norm() <= SAME * size)
    rows = gradient.flatten(1) if gradient.dim() > 1 else gradient[:, None]
    along = cotangent[:, None] * (cotangent @ rows) / cotangent.square().sum()
    return bool((rows - along).norm() <= SAME * size)

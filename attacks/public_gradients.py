"""Gradients of public images, one image at a time, and their inner products.

The inner products are all that a linear estimate needs, and they fit into memory for a network of any size.
"""

from __future__ import annotations

import hashlib
import warnings
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import TypeVar

import torch
from torch import Tensor
from torch.func import grad, vmap

from dpbench.protocol import Knowledge, functional_call

CHUNK = 25
"""Images whose gradients are taken at a time."""
ENTRIES = 2**27
"""Gradient entries that are held at a time: half a GiB in float32, once for each of two blocks."""
KEPT = 24
"""Results that a process keeps: two for each class of a data set of ten, and a few."""
T = TypeVar("T")
_kept: OrderedDict[Hashable, object] = OrderedDict()


def gradients(knowledge: Knowledge, images: Tensor, labels: Tensor) -> Tensor:
    """The gradient of each image's loss over all trainable parameters, [n, P], in the release's order.

    Args:
        knowledge: the victim and its loss.
        images: [n, C, H, W] in [0, 1], on the model's device.
        labels: int64 [n], likewise.
    """
    parts = zip(images.split(CHUNK), labels.split(CHUNK), strict=True)
    return torch.cat([_chunk(knowledge, *part) for part in parts])


def _chunk(knowledge: Knowledge, images: Tensor, labels: Tensor) -> Tensor:
    named = dict(knowledge.model.named_parameters())
    trained = {name: p.detach() for name, p in named.items() if p.requires_grad}

    def loss(parameters: dict[str, Tensor], image: Tensor, label: Tensor) -> Tensor:
        return knowledge.loss(functional_call(knowledge.model, parameters, (image[None],)), label[None])

    try:
        rows = vmap(grad(loss), in_dims=(None, 0, 0))(trained, images, labels)
        return torch.cat([rows[name].flatten(1) for name in trained], 1)
    except (RuntimeError, ValueError) as error:  # functorch refuses some networks and losses
        reason = str(error).partition("\n")[0]
        warnings.warn(
            f"Gradients of public images are taken one image at a time, because vmap failed: {reason}",
            RuntimeWarning,
            stacklevel=2,
        )
        return torch.stack([_single(knowledge, x, y) for x, y in zip(images, labels, strict=True)])


def _single(knowledge: Knowledge, image: Tensor, label: Tensor) -> Tensor:
    parameters = [p for p in knowledge.model.parameters() if p.requires_grad]
    with torch.enable_grad():
        loss = knowledge.loss(knowledge.model(image[None]), label[None])
    found = torch.autograd.grad(loss, parameters, materialize_grads=True)
    return torch.cat([g.flatten() for g in found])


def inner_products(
    knowledge: Knowledge, images: Tensor, labels: Tensor, mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Inner products of the images' gradients with each other, float64 [n, n], and their norms, [n].

    Where they do not fit into memory together, gradients are computed once for every pair of blocks.

    Args:
        knowledge: the victim and its loss.
        images: [n, C, H, W] in [0, 1].
        labels: int64 [n].
        mask: [P], what entries are multiplied by in the products, but not in the norms.
    """
    count = sum(p.numel() for p in knowledge.model.parameters() if p.requires_grad)
    size = max(1, ENTRIES // count)
    blocks = list(zip(images.split(size), labels.split(size), strict=True))
    rows: list[list[Tensor]] = [[] for _ in blocks]
    norms = []
    for i, block in enumerate(blocks):
        first = gradients(knowledge, *block)
        norms.append(first.double().norm(dim=1) if mask is None else first.norm(dim=1).double())
        first = first if mask is None else first * mask
        for j in range(i):
            rows[i].append(rows[j][i].T)
        rows[i].append((first @ first.T).double())
        for block in blocks[i + 1 :]:
            rows[i].append((first @ gradients(knowledge, *block).T).double())
    return torch.cat([torch.cat(row, 1) for row in rows]), torch.cat(norms)


def products_with(knowledge: Knowledge, images: Tensor, labels: Tensor, vector: Tensor) -> Tensor:
    """Inner product of each image's gradient with `vector` [P], float64 [n].

    It takes two backward passes for each chunk and no gradient of a single image: the gradient of a weighted
    sum of losses is linear in the weights.
    """
    parameters = [p for p in knowledge.model.parameters() if p.requires_grad]
    directions = [
        v.view_as(p) for v, p in zip(vector.split([p.numel() for p in parameters]), parameters, strict=True)
    ]
    found = []
    for x, y in zip(images.split(8 * CHUNK), labels.split(8 * CHUNK), strict=True):
        with torch.enable_grad():
            logits = knowledge.model(x)
            losses = [knowledge.loss(logits[i : i + 1], y[i : i + 1]) for i in range(len(x))]
            weights = torch.ones(len(x), device=x.device, dtype=logits.dtype, requires_grad=True)
            total = (weights * torch.stack(losses)).sum()
            summed = torch.autograd.grad(total, parameters, create_graph=True, materialize_grads=True)
            along = sum((g * d).sum() for g, d in zip(summed, directions, strict=True))
        found.append(torch.autograd.grad(along, weights)[0].double())
    return torch.cat(found)


def remembered(key: Hashable, compute: Callable[[], T]) -> T:
    """`compute()`, or what it gave in this process for the same key; the last `KEPT` results are kept."""
    if key not in _kept:
        _kept[key] = compute()
    _kept.move_to_end(key)
    while len(_kept) > KEPT:
        _kept.popitem(last=False)
    return _kept[key]


def fingerprint(knowledge: Knowledge, images: Tensor, labels: Tensor, mask: Tensor | None) -> str:
    """A hash of all that decides the inner products: the victim's weights and what it does, and the images.

    What the victim and its loss compute shows in the gradient of the first image.
    """
    found = hashlib.sha256()
    state = knowledge.model.state_dict().values()
    probe = _single(knowledge, images[0], labels[0])
    for tensor in (*state, probe, images, labels, *(() if mask is None else (mask,))):
        found.update(f"{tuple(tensor.shape)} {tensor.dtype} {tensor.device.type}".encode())
        found.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()

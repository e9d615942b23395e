"""How the last block of a residual network begins: its ReLU's pattern behind global average pooling.

Pooling spreads the loss gradient evenly, so behind the last ReLU it is one number for each channel, times
the pattern of active units, which nothing tells directly. For channel o, the gradient of the convolution
before it is that number times sum_p pattern[o, p] * patch[p], over the places p of the feature map. This is
the gradient of a fully connected layer whose samples are the places. Patches of features behind ReLU have
zeros of their own, and `sparsity` tells them apart.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor
from torch.nn import functional as F

from attacks.exact.layers import Layer
from attacks.exact.sparsity import Propose, sparse_rows
from attacks.exact.subspace import Subspace
from attacks.gaussian_prior import Whitening
from dpbench.protocol import Knowledge

ROUNDING = 1e-7
"""Relative error of gradients in float32."""
VISIBLE = 10
"""A place is told apart if it stands out from the rounding errors by this factor."""
UNEVEN = 0.1
"""How far from 0 and 1 the entries of a pattern may be."""


def pattern(
    layer: Layer,
    gradient: Tensor,
    evenly: Tensor,
    generator: torch.Generator,
    starts: int,
    propose: Propose | None = None,
) -> Tensor | None:
    """Which units [O, h, w] of the ReLU behind `layer` are active; None where that cannot be told.

    Args:
        layer: a convolution whose outputs are as many as its inputs' places.
        gradient: float64 [O, C, kh, kw], of its weight.
        evenly: [O], the loss gradient at each output of a channel, were it active.
        generator: on the CPU.
        starts: see `sparse_rows`.
        propose: likewise.
    """
    height, width = layer.output_shape[1:]
    taps, places = layer.taps(), torch.arange(height * width)
    centre = (taps == places).all(1).nonzero().flatten().tolist() if taps.shape[1] == len(places) else []
    if not centre or layer.input_shape[1:] != (height, width) or len(gradient) < len(places):
        return None
    flat = gradient.flatten(1)
    _, values, basis = torch.linalg.svd(flat, full_matrices=False)
    values, basis = values[: len(places)], basis[: len(places)]
    floor = ROUNDING * float(values[0])
    if not float(values[-1]) > VISIBLE * floor or not bool(evenly.all()):
        return None
    space = Subspace(basis, values, floor, len(flat))
    for rows in sparse_rows(space, generator, starts, True, propose):
        shares = flat / evenly[:, None] @ torch.linalg.pinv(rows)  # [O, places]: 0, or the scale of the row
        scale = _typical(shares)
        found = shares / scale
        active = found > 0.5
        if not bool((scale > 0).all()) or float((found - active.double()).abs().max()) > UNEVEN:
            continue
        patches = (rows * scale[:, None]).unflatten(1, (layer.weight.shape[1], -1))
        return active[:, arranged(patches, taps, centre[0])].view(-1, height, width)
    return None


def _typical(shares: Tensor) -> Tensor:
    """[places], the median of those entries of each column that are more than half of the largest."""
    large = torch.where(shares > shares.amax(0) / 2, shares, torch.nan)
    return large.nanmedian(0).values


def arranged(patches: Tensor, taps: Tensor, centre: int) -> list[int]:
    """The index of the patch at each place, by what neighbouring patches share.

    Args:
        patches: [places, C, k], in any order.
        taps: [k, places], the place of each entry of a patch; the number of places stands for padding.
        centre: the entry that is at the patch's own place.
    """
    outside, order = taps.shape[1], []
    for place in range(outside):
        wanted = torch.zeros(len(patches), dtype=patches.dtype)
        for k, there in enumerate(taps[:, place].tolist()):
            if there == outside:
                wanted += patches[:, :, k].square().sum(1)
            elif there < place:
                wanted += (patches[:, :, k] - patches[order[there], :, centre]).square().sum(1)
        for earlier in range(place):
            for k in (taps[:, earlier] == place).nonzero().flatten().tolist():
                wanted += (patches[:, :, centre] - patches[order[earlier], :, k]).square().sum(1)
        wanted[order] = torch.inf
        order.append(int(wanted.argmin()))
    return order


def of_made_up_images(knowledge: Knowledge, layer: Layer, generator: torch.Generator) -> Propose:
    """Patches [n, C * k] of what `layer` takes at images of a Gaussian field with public statistics."""
    model = copy.deepcopy(knowledge.model).double().cpu()
    whitening, seen = Whitening(knowledge.image_statistics).cpu(), []
    model.get_submodule(layer.name).register_forward_hook(lambda module, given, output: seen.append(given[0]))
    kernel = tuple(layer.weight.shape[2:])

    def propose(away: Tensor, missing: Tensor | None) -> Tensor:
        shape = (32, *knowledge.image_shape)
        entries = torch.randn(shape, generator=generator, dtype=torch.float64)
        seen.clear()
        with torch.no_grad():
            model(whitening.inverse(entries).clamp(0, 1))
        patches = F.unfold(
            F.pad(seen[0], layer.padding), kernel, dilation=layer.dilation, stride=layer.stride
        )
        rows = patches.transpose(1, 2).flatten(0, 1)
        rows = rows[torch.randint(len(rows), away.shape, generator=generator)]
        return rows if missing is None else rows - away[:, None] * (rows - rows @ missing.T @ missing)

    return propose

"""How much of one image's release a reconstruction leaves unexplained."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from attacks.reading import reading_of
from dpbench.protocol import Knowledge, Release

CERTAIN = 1e-4
"""Largest relative residual of an image that is certified."""
NEGLIGIBLE = 1e-6
"""Share of the longest gradient of a layer that shorter ones are measured by."""


def unexplained(
    release: Release, knowledge: Knowledge, first: str, image: Tensor, negligible: float = NEGLIGIBLE
) -> float:
    """The largest relative error of any tensor's gradient, recomputed by the victim in float64.

    Entries that the last stage did not send do not count. The released bias gradient of layer `first` is what
    is propagated backwards, so clipping changes nothing. The softmax of a confident victim is not computed
    anew: its rounding in float32 may be a per cent of it.

    Args:
        release: of one image.
        knowledge: of its victim.
        first: name of a fully connected layer with a bias.
        image: [1, C, H, W] in [0, 1].
        negligible: share of the longest gradient of a layer that shorter ones are measured by.
    """
    model = copy.deepcopy(knowledge.model).double().cpu()
    outputs: list[Tensor] = []
    model.get_submodule(first).register_forward_hook(lambda module, given, output: outputs.append(output))
    released = dict(zip(release.names, release.gradients, strict=True))
    seen = reading_of(release)
    sent = [torch.ones_like(g) for g in release.gradients] if seen is None else seen.shares
    shares = dict(zip(release.names, (share.double().cpu() for share in sent), strict=True))
    parameters = {name: p for name, p in model.named_parameters() if name in released}
    with torch.enable_grad():
        model(image.double().cpu())
    cotangent = released[f"{first}.bias"].double().cpu().view_as(outputs[0])
    found = torch.autograd.grad(outputs[0], list(parameters.values()), cotangent, allow_unused=True)
    used = {n: g for n, g in zip(parameters, found, strict=True) if g is not None}
    lengths = {name: float(released[name].double().norm()) for name in used}
    least = negligible * max(lengths.values())
    errors = [
        float((shares[n] * (g - released[n].double().cpu())).norm()) / max(lengths[n], least)
        for n, g in used.items()
    ]
    return float(torch.tensor(errors).max())  # unlike `max`, NaN wherever one is

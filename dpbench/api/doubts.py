"""Whether a release can be what it says it is."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator

import torch
from torch import Tensor, nn

import defenses
from dpbench.api import lengths
from dpbench.protocol import Loss, Release

FEWEST = 200
"""Parameters below which the noise on them says too little about its level."""
_TOLERANCE = 0.1
"""Relative distance of two gradients of one batch; TensorFloat-32 alone accounts for up to 8 %."""


def doubts(release: Release, model: nn.Module, loss: Loss, images: Tensor, labels: Tensor) -> list[str]:
    """One sentence for each way in which the release does not fit the model, the images or its own claim.

    The gradient is computed anew, without noise, and compared. Only releases without a defence, or with
    clipping or noise alone or together, can be compared so; of others nothing is said. Noise hides what
    Opacus clipped wrongly, so its hooks are tried on the images, and the lengths that it clipped compared.

    Args:
        release: a mean over the `images`, under the model's names.
        model: as it was before the step.
        loss: mean-reduced.
        images: [B, 3, H, W].
        labels: int64 [B].
    """
    return list(_found(release, model, loss, images, labels))


def _found(release: Release, model: nn.Module, loss: Loss, images: Tensor, labels: Tensor) -> Iterator[str]:
    stages = {stage.name: stage.parameters for stage in release.defense}
    if list(stages) not in ([], ["clip"], ["dp"], ["noise"], ["clip", "noise"]):
        return
    chain, unit = defenses.create("none"), ""
    if list(stages) not in ([], ["noise"]):
        clip = next(iter(stages.values()))
        unit = clip.get("unit", "record")
        chain = defenses.create("clip", max_grad_norm=clip["max_grad_norm"], unit=unit)
    (again,) = chain.releases(model, loss, images, labels, seed=0, count=1, local=release.local)
    wanted = _flat(again.gradients)
    found = _flat(release.gradients)
    off = found - wanted
    level = release.noise_on_sum() / release.batch_size
    if level == 0:
        distance = float(off.norm() / wanted.norm().clamp_min(1e-12))
        factor = float(found @ wanted / wanted.square().sum().clamp_min(1e-24))
        if release.local is not None:
            if distance > _TOLERANCE:
                yield (
                    f"The release differs by {distance:.0%} from the update that plain SGD makes of these "
                    "images in this model: give the model as it was sent out, the images in the order of the "
                    "training, and its `lr`. Momentum, weight decay and another order in every epoch are not "
                    "simulated."
                )
        elif (
            distance > _TOLERANCE and factor and (found / factor - wanted).norm() < _TOLERANCE * wanted.norm()
        ):
            yield (
                f"The release is {factor:.3g} times the gradient of these images in this model: it was "
                "clipped as a whole, scaled, or summed over several backward passes. Capture it without "
                "that, or divide it by the factor: some attacks go by its length."
            )
        elif distance > _TOLERANCE:
            yield (
                f"The release differs by {distance:.0%} from the gradient of these images in this model: "
                "give the model as it was before the step, and the images as it got them."
                f"{_dropout(model)}"
            )
        return
    copies = max(Counter(image.numpy().tobytes() for image in images.cpu()).values())
    if copies > 1 and unit == "record":
        yield (
            f"An image is {copies} times in the batch, and each of its rows moves the sum by up to C: the "
            "epsilon is that of one row, and all of them together give away more. If one step takes several "
            "batches, step after each."
        )
    others = False  # whether other gradients than the images' own were clipped
    if release.per_sample == "opacus":
        from defenses.per_sample.trained import misread, own_lengths  # Opacus takes seconds to import

        if wrong := misread(model, loss, images, labels):
            yield (
                f"{wrong}, so what this step clipped was not the gradient of each image, and its epsilon may "
                "not hold. Mostly channels, frames or crops are folded into the first dimension of what that "
                "layer gets, which Opacus takes for the images: undo that, or replace the layer."
            )
        elif release.clipped:
            doubt = lengths.doubt(release.clipped, own_lengths(model, loss, images, labels))
            others = bool(doubt)
            if others:
                yield f"{doubt}{_dropout(model)}"
    if len(off) < FEWEST:
        return
    # the root mean square of n normal draws deviates by 1 / sqrt(2 n); four of them are allowed, and 2 %
    ratio, room = float(off.double().square().mean().sqrt()) / level, 4 / math.sqrt(2 * len(off)) + 0.02
    if abs(ratio - 1) > room and not (others and ratio > 1):
        yield (
            f"The release lies {ratio:.2f} times as far from the clipped gradient of these images as noise "
            "of its sigma would take it. Below 1 there is less noise than it says, and its epsilon does not "
            "hold. Above 1 the model or the images may be others than those of the step."
            f"{_dropout(model) if ratio > 1 else ''}"
        )


def _dropout(model: nn.Module) -> str:
    """What dropout has to do with it, if there is any in training mode; it is off where dpbench computes."""
    for name, module in model.named_modules():
        kind = type(module).__name__.lower()
        rate = getattr(module, "p", 0) or getattr(module, "drop_prob", 0)  # of drop path in timm, say
        if module.training and rate and ("drop" in kind or "stochastic" in kind):
            return (
                f" Or it is {name or 'the model'} ({type(module).__name__}), whose random mask no attacker "
                "knows: make the step that you capture with dropout off."
            )
    return ""


def _flat(gradients: tuple[Tensor, ...]) -> Tensor:
    return torch.cat([gradient.flatten() for gradient in gradients])

"""One image in closed form, layer by layer from a fully connected layer back to the pixels.

For one sample, the loss gradient at a layer's outputs (delta) gives that at its inputs, and the gradient of
the layer's weights is linear in its inputs (R-GAP, Zhu and Blaschko 2021). What is new here, and makes it
exact: the bias gradient tells which units were active, and both systems of `solve` are weighed by their
errors.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from attacks.adaptation import EXACT
from attacks.exact import hidden
from attacks.exact.activations import undone
from attacks.exact.layers import Affine, Block, Chain, read
from attacks.exact.priors import Images, Prior
from attacks.exact.solve import Estimate, TooLargeError, inputs
from attacks.reading import reading_of
from dpbench.protocol import Knowledge, Release

DETERMINED = 1e-3
"""Largest expected error (root mean square, images in [0, 1]) of an image that is certified."""
BELIEVED = 0.5
"""Directions that may follow from the prior in an image that is certified; see `Estimate.believed`."""
HIDING = frozenset({"soteria"})
"""Stages that leave most entries as they are, and say which."""


class Stopped(Exception):  # noqa: N818 (no error: the search takes over)
    """The closed form does not apply; the message says why, as a clause."""


def peeled(release: Release, knowledge: Knowledge) -> tuple[str, Tensor, bool, float]:
    """The image, and how well the release determines it.

    Returns:
        The name of the layer that it was solved from; float32 [1, C, H, W] in [0, 1] on the CPU; whether the
        release alone determines it; its expected error, root mean square.

    Raises:
        Stopped: where there is no closed form.
    """
    if why := refused(release):
        raise Stopped(why)
    chain = read(knowledge.model, knowledge.image_shape)
    gradients = exactly(release)
    first = _first(chain, gradients)
    unsent = _unsent(release, chain.blocks[first].layer.name)
    try:
        pixels = backwards(chain, first, gradients, prior_of(chain, knowledge), unsent)
    except TooLargeError:
        raise Stopped("the image has too many pixels for it") from None
    except (ArithmeticError, torch.linalg.LinAlgError):
        raise Stopped("its equations cannot be solved in float64") from None
    shape = (1, *knowledge.image_shape)
    expected = float(pixels.deviations.square().mean().sqrt())
    determined = expected <= DETERMINED and pixels.believed < BELIEVED
    image = pixels.values.view(shape).nan_to_num().clamp(0, 1).float()
    return chain.blocks[first].layer.name, image, determined, expected


def refused(release: Release) -> str:
    """Why no closed form takes this release, as a clause; empty if that depends on the model."""
    if release.batch_size != 1:
        return f"it takes one image, and the batch has {release.batch_size}"
    inexact = [stage.name for stage in release.defense if stage.name not in EXACT | HIDING]
    return f"it needs exact gradients, and {inexact[0]} changes them" if inexact else ""


def exactly(release: Release) -> dict[str, Tensor]:
    """The gradients by name, float64 on the CPU."""
    found = zip(release.names, release.gradients, strict=True)
    return {name: gradient.detach().cpu().double() for name, gradient in found}


def _first(chain: Chain, gradients: Mapping[str, Tensor]) -> int:
    """Index of the layer whose bias gradient is the delta that all others follow from."""
    for i, block in enumerate(chain.blocks):
        layer = block.layer
        if f"{layer.name}.weight" not in gradients:
            raise Stopped(f"the gradient of `{layer.name}` was not released")
        if layer.dense and f"{layer.name}.bias" in gradients:
            if not bool(gradients[f"{layer.name}.bias"].any()):
                raise Stopped(f"the gradient of `{layer.name}` is zero")
            return i
    where = f", and this one ends at {chain.end}" if chain.end else ""
    raise Stopped(
        "it needs a chain of convolutions and activations up to a fully connected layer with a bias" + where
    )


def _unsent(release: Release, layer: str) -> Tensor | None:
    """Bool [inputs], those of a fully connected layer that no entry of its gradient tells; None for none."""
    seen = reading_of(release)
    if seen is None:
        return None
    shares = dict(zip(release.names, seen.shares, strict=True))[f"{layer}.weight"]
    unsent = ~shares.bool().any(0).cpu()
    return unsent if bool(unsent.any()) else None


def behind(
    before: Block | None, after: Estimate, unsent: Tensor, delta: Tensor, gradients: Mapping[str, Tensor]
) -> tuple[Estimate, Tensor]:
    """What lies before a ReLU of which units were not sent, and the loss gradient there.

    Raises:
        Stopped: where nothing tells which of these units were active.
    """
    if before is None or not hidden.readable(before):
        raise Stopped("the gradient hides features, and there is no ReLU behind a layer to tell them by")
    found = hidden.undone(before, after, unsent, delta, gradients)
    if found is None:
        raise Stopped("the gradient hides features, and nothing tells which of them were active")
    return found


def prior_of(chain: Chain, knowledge: Knowledge) -> Images | None:
    """What public images say of the first layer's inputs; None where there are no statistics that fit."""
    statistics, shape = knowledge.image_statistics, torch.Size(knowledge.image_shape)
    if (
        statistics is None
        or statistics.mean_image.shape != shape
        or not all(isinstance(step, Affine) for step in chain.head)
    ):
        return None
    if chain.blocks[0].layer.input_shape != tuple(shape):
        return None
    gain, offset = torch.ones(shape, dtype=torch.float64), torch.zeros(shape, dtype=torch.float64)
    for step in chain.head:
        gain, offset = gain * step.gain.view(shape), offset * step.gain.view(shape) + step.offset.view(shape)
    return Images(statistics, gain, offset)


def backwards(
    chain: Chain,
    first: int,
    gradients: Mapping[str, Tensor],
    prior: Prior | None = None,
    unsent: Tensor | None = None,
) -> Estimate:
    """The image [C * H * W] that layer number `first` and those before it were given; not clamped.

    Args:
        chain: what the model does.
        first: has a bias, whose gradient is the delta that all others follow from.
        gradients: released, by name; float64.
        prior: of the image.
        unsent: bool [values], inputs of layer `first` that its gradient does not tell; None for none.
    """
    layer = chain.blocks[first].layer
    delta = gradients[f"{layer.name}.bias"]
    values = Estimate(torch.zeros_like(delta), torch.full_like(delta, torch.inf))
    for i in range(first, -1, -1):
        layer = chain.blocks[i].layer
        gradient = gradients[f"{layer.name}.weight"].view(layer.weight.shape)
        values = inputs(layer, delta, gradient, values, None if i else prior)
        delta = layer.transposed(delta.view(1, *layer.output_shape)).flatten()
        before = chain.blocks[i - 1] if i else None
        if i == first and unsent is not None:
            values, delta = behind(before, values, unsent, delta, gradients)
            continue
        total = gradients.get(f"{before.layer.name}.bias") if before else None
        values, delta = undone(before.pointwise if before else chain.head, values, delta, total)
    return values

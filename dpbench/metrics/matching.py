"""The assignment of reconstructions to originals.

An attack returns its images in any order. Choosing the best partner for each metric, or for each image, would
flatter it. Here every original gets one reconstruction, none is used twice, and all metrics that compare
pairs share these pairs.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dpbench.metrics.base import Scored
from dpbench.metrics.checks import checked_pair
from dpbench.metrics.perceptual import embed, why_no_lpips
from dpbench.protocol import InputError

COSTS = ("lpips", "mse")


def match(images: Tensor, originals: Tensor, cost: str | None = None, net: str = "alex") -> Tensor:
    """The one-to-one assignment of least total cost (Kuhn 1955; scipy's solver).

    Args:
        images: reconstructions, [B, 3, H, W] in [0, 1].
        originals: the same shape, in any order.
        cost: `lpips` or `mse` between each image and each original; None takes LPIPS where it can be computed
            for this size on this machine, else MSE.
        net: the LPIPS net, `alex` or `vgg`.

    Returns:
        int64 [B], a permutation on the device of `images`: `images[match]` lines up with `originals`.

    Raises:
        InputError: for an unknown cost; see `checked_pair` and `lpips` for the rest.
        dpbench.assets.AssetUnavailable: if `lpips` is asked for and no source has the net's trunk.

    Example:
        >>> originals = torch.rand(3, 3, 8, 8)
        >>> match(originals[[2, 0, 1]], originals)
        tensor([1, 2, 0])
    """
    images, originals = checked_pair(images, originals)
    if cost is None:
        cost = "mse" if why_no_lpips(*images.shape[2:], net) else "lpips"
    if cost not in COSTS:
        raise InputError(f"Unknown matching cost {cost!r}; known: {', '.join(COSTS)}.")
    if len(images) == 1:
        return torch.zeros(1, dtype=torch.int64, device=images.device)
    vectors, targets = (embed(x, net) if cost == "lpips" else x.flatten(1) for x in (images, originals))
    # One row per original: differences, not |a|^2 + |b|^2 - 2ab, which loses small distances to rounding.
    costs = torch.stack([(vectors - target).square().sum(1, dtype=torch.float64) for target in targets])
    from scipy.optimize import linear_sum_assignment  # SciPy takes a second to import

    _, order = linear_sum_assignment(costs.cpu().numpy())
    return torch.as_tensor(order, dtype=torch.int64, device=images.device)


def matched(
    outputs: Tensor,
    originals: Tensor,
    labels: Tensor,
    mean_image: Tensor,
    *,
    found_labels: Tensor | None = None,
    others: tuple[Tensor, Tensor] | None = None,
    lpips_net: str | None = None,
    rebuilds_images: bool = True,
) -> Scored:
    """An attack's images assigned to their originals, ready for `measure`.

    Args:
        outputs: the attack's images, [B, 3, H, W] in [0, 1], in any order.
        originals: the same shape.
        labels: int64 [B], the true ones.
        mean_image: the public mean image, [3, H, W] in [0, 1].
        found_labels: the attack's, aligned with `outputs`; None where it has none.
        others: images outside the batch and their labels; None where there are none.
        lpips_net: `alex` or `vgg` where its trunk can be had (`why_no_lpips`), and LPIPS is the cost of the
            assignment; None where it cannot, and the cost is the squared error.
        rebuilds_images: False for an attack on labels alone: its images are left in their order.

    Raises:
        InputError: see `Scored`.
    """
    if rebuilds_images:
        cost = "mse" if lpips_net is None else "lpips"
        order = match(outputs, originals, cost, lpips_net or "alex")
    else:
        order = torch.arange(len(outputs), device=outputs.device)
    return Scored(
        images=outputs[order],
        outputs=outputs,
        originals=originals,
        order=order,
        labels=labels,
        mean_image=mean_image,
        found_labels=found_labels,
        others=others,
        lpips_net=lpips_net,
        rebuilds_images=rebuilds_images,
    )

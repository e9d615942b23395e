"""The one assignment of reconstructions to originals, and all metrics under it.

An attack returns a batch in an order of its own. Choosing the best partner anew for each metric, or for each
image, flatters it; here every original gets one reconstruction, none is used twice, and all metrics are of
that pairing.
"""

from __future__ import annotations

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from dpbench.metrics.image import SSIM_SIDE, checked_pair, fft2d, psnr, ssim
from dpbench.metrics.perceptual import embed, lpips, why_no_lpips
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
    _, order = linear_sum_assignment(costs.cpu().numpy())
    return torch.as_tensor(order, dtype=torch.int64, device=images.device)


def score(images: Tensor, originals: Tensor, cost: str | None = None, net: str = "alex") -> dict[str, Tensor]:
    """All metrics of each original's reconstruction, under one assignment.

    Args:
        images: reconstructions, [B, 3, H, W] in [0, 1], in any order.
        originals: the same shape.
        cost: see `match`.
        net: the LPIPS net, `alex` or `vgg`.

    Returns:
        `match`, int64 [B], and `psnr` (dB), `ssim`, `lpips`, `fft2d`, float64 [B], all in the order of
        `originals`. A metric that cannot be computed here (no LPIPS trunk, images too small) is all NaN: an
        empty column. `why_no_lpips` says why.

    Raises:
        InputError: see `match`.

    Example:
        >>> originals = torch.rand(2, 3, 8, 8)
        >>> result = score(originals.flip(0), originals)
        >>> result["match"], result["psnr"], result["ssim"]
        (tensor([1, 0]), tensor([inf, inf], dtype=torch.float64), tensor([nan, nan], dtype=torch.float64))
    """
    order = match(images, originals, cost, net)
    pair = images[order], originals
    empty = torch.full((len(images),), torch.nan, dtype=torch.float64, device=images.device)
    height, width = images.shape[2:]
    return {
        "match": order,
        "psnr": psnr(*pair),
        "ssim": ssim(*pair) if min(height, width) >= SSIM_SIDE else empty,
        "lpips": empty if why_no_lpips(height, width, net) else lpips(*pair, net),
        "fft2d": fft2d(*pair),
    }

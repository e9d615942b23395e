"""Scattering features of images: computed once, kept in the user's cache folder.

Features that were learnt on no data cost no privacy, and a linear layer on them is the strong baseline for
small budgets (Tramer and Boneh 2021).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from dpbench.accuracy.data import scaled
from dpbench.protocol import InputError
from dpbench.system import cache, digest
from dpbench.system.atomic import clear_leftovers, replacing

J, L = 2, 8
"""Octaves and angles."""
GROUPS = 27
"""Groups of the normalisation."""
BLOCK = 5000
"""Images whose features lie in one file: 155 MB at 32 x 32 pixels."""
CHUNK = 50
"""Images that are transformed together."""
VERSION = 1
"""Of what is computed here; another number leaves older files unused."""


def scattered(images: Tensor, tell: Callable[[int, int], None]) -> Tensor:
    """Normalised scattering features, float16 [N, C * 81 * H/4 * W/4]: 31 kB for an image of 32 x 32 pixels.

    Every sample is normalised by itself, in groups of coefficients, so no other sample enters: nothing is
    spent of a budget. Blocks of images that were transformed before are read from the cache folder.

    Args:
        images: uint8 or float in [0, 1], [N, C, H, W].
        tell: is given the number of images that are done and that of all.

    Raises:
        InputError: for images that have no such transform.
    """
    if images.ndim != 4 or min(images.shape[2:]) < 2**J:
        raise InputError(
            f"Scattering features are of images [N, C, H, W] of {2**J} pixels or more, not of "
            f"{list(images.shape)}: use another model."
        )
    found: Tensor | None = None
    for start in range(0, len(images), BLOCK):
        block = images[start : start + BLOCK]

        def told(done: int, start: int = start) -> None:
            tell(start + done, len(images))

        features = _block(block, told)
        if found is None:
            found = torch.empty(len(images), features.shape[1], dtype=torch.float16)
        found[start : start + len(block)] = features
    return found


def _block(images: Tensor, tell: Callable[[int], None]) -> Tensor:
    """The features of one block, from its file where there is one."""
    name = digest.described({"images": digest.tensors({"": images}), "groups": GROUPS, "version": VERSION})
    path = folder() / f"{name}.safetensors"
    try:
        features = load_file(path)["features"]
        if len(features) == len(images):
            tell(len(images))
            return features
    except (OSError, SafetensorError, KeyError):
        pass
    features = _computed(images, tell)
    _keep(path, features)
    return features


def folder() -> Path:
    """Where features are kept."""
    return cache.folder() / "scattering"


def _computed(images: Tensor, tell: Callable[[int], None]) -> Tensor:
    # `kymatio.torch` imports the transforms of other dimensions along with this one, and these ask for a
    # function that SciPy has removed (scipy.special.sph_harm)
    from kymatio.scattering2d.frontend.torch_frontend import ScatteringTorch2D

    transform = ScatteringTorch2D(J=J, shape=tuple(images.shape[2:]), L=L)
    parts = []
    with torch.no_grad():
        for chunk in images.split(CHUNK):
            maps = transform(scaled(chunk).contiguous())  # [B, C, 81, H/4, W/4]: 1 + J L + L^2 J (J - 1) / 2
            parts.append(F.group_norm(maps.flatten(1, 2), GROUPS).flatten(1).half())
            tell(sum(map(len, parts)))
    return torch.cat(parts)


def _keep(path: Path, features: Tensor) -> None:
    """Into the cache, if there is room: without it they are computed again next time."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        clear_leftovers(path.parent)
        with replacing(path) as temporary:
            save_file({"features": features}, temporary)
    except (OSError, InputError, SafetensorError):
        pass

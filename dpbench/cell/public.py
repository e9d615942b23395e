"""Other people's images for attacks that need them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from dpbench.protocol import PublicImages

AT_MOST = 10_000
"""Images that an attacker may know where they are read from the attacked data set itself."""


@dataclass(frozen=True)
class PublicSource:
    """Where images come from that an attacker may know.

    Attributes:
        load: gives images [n, C, H, W], uint8 or float in [0, 1], and labels int64 [n].
        decoys: decoys of the gallery may be among them, because there are no other images.
    """

    load: Callable[[], tuple[Tensor, Tensor]]
    decoys: bool = False


def public_images(
    source: PublicSource | None, images: Tensor, gallery: tuple[Tensor, Tensor] | None
) -> PublicImages | None:
    """The images of `source` without copies of attacked ones; None where there is no source.

    Args:
        source: where they come from.
        images: the attacked ones, float [B, C, H, W] in [0, 1].
        gallery: decoys and their labels. Copies of these are left out, too, unless the source has no others.
    """
    if source is None:
        return None
    found, labels = source.load()
    hidden = _pixels(images) | (_pixels(gallery[0]) if gallery and not source.decoys else set())
    kept = [i for i, pixels in enumerate(_bytes(found)) if pixels not in hidden]
    return PublicImages(found[kept], labels[kept])


def _pixels(images: Tensor) -> set[bytes]:
    return set(_bytes(images))


def _bytes(images: Tensor) -> list[bytes]:
    """Each image's 8-bit pixels."""
    images = (images * 255).round().byte() if images.is_floating_point() else images
    return [image.tobytes() for image in images.cpu().contiguous().numpy()]

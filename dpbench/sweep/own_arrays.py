"""Arrays as people have them, as inputs in [0, 1] with the channels first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from dpbench.data.decode import brightest_open, rgb
from dpbench.data.depth import check_depth
from dpbench.data.resizing import centre_square
from dpbench.protocol import InputError

_DIVIDE = "Divide them by the largest value that they can have, and give floats in [0, 1]."
SHAPES = "pictures [B, 3, H, W], [B, 1, H, W] or [B, H, W], volumes [B, C, D, H, W] or rows of a table [B, F]"


def as_pair(images: Any, labels: Any, what: str = "images", size: int | None = None) -> tuple[Tensor, Tensor]:
    """`as_inputs` and the label of each, int64 [B].

    Raises:
        InputError: where `as_inputs` does, and for anything but one whole number for each image.
    """
    images = as_inputs(images, what, size)
    labels = _tensor(labels, "labels")
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]  # as MedMNIST has them
    if labels.is_floating_point() or labels.is_complex() or labels.shape != images.shape[:1]:
        each = "the image" if len(images) == 1 else f"each of the {len(images)} images"
        alone = "; one picture alone is [1, C, H, W]" if images.ndim == 3 and labels.numel() == 1 else ""
        raise InputError(
            f"labels must be whole numbers, one for {each}, not {labels.dtype} of shape "
            f"{tuple(labels.shape)}{alone}."
        )
    return images, labels.long().clone()


def as_inputs(images: Any, what: str = "images", size: int | None = None) -> Tensor:
    """A batch as a new float32 tensor in [0, 1], on the CPU.

    Its shape is [B, C, H, W] or [B, H, W] of pictures, [B, C, D, H, W] of volumes, or [B, F] of a table.

    Pictures and volumes may be in [0, 1]; whole numbers of 8 bits, also as floats; or unsigned integers of 16
    bits. Their channels may be last. Rows of a table are in [0, 1] as they are.

    Args:
        images: a tensor or an array, or a list of pictures that may differ in size.
        what: what to call it in messages.
        size: pictures are resized so that the short side has so many pixels, and cut to the centre square.

    Raises:
        InputError: for anything else, and for pictures of several sizes without a `size`.

    Example:
        >>> as_inputs(torch.full((2, 8, 8, 3), 255)).shape
        torch.Size([2, 3, 8, 8])
        >>> as_inputs([torch.zeros(8, 9), torch.ones(20, 10)], size=8).shape
        torch.Size([2, 8, 8])
    """
    if isinstance(images, list | tuple):
        return _listed(images, what, size)
    found = _tensor(images, what)
    if found.ndim and not len(found):
        raise InputError(f"{what} are none: give at least one.")
    if not 2 <= found.ndim <= 5 or not found.numel():
        raise InputError(f"{what} must be {SHAPES}, not of shape {tuple(found.shape)}.")
    if found.ndim == 2:
        if not found.is_floating_point():
            raise InputError(
                f"{what} are rows of a table of {found.dtype}: give floats in [0, 1], each feature scaled by "
                "its public range."
            )
    else:
        found = _channels_first(_scaled(found, what), what)
    if bool(found.isnan().any()):
        raise InputError(f"{what} hold NaN: give numbers in [0, 1].")
    if not bool(((found >= 0) & (found <= 1)).all()):
        raise InputError(
            f"{what} must lie in [0, 1] and theirs reach from {float(found.min()):.3g} to "
            f"{float(found.max()):.3g}; hand them over as they are before normalisation, and normalise "
            "inside the model."
        )
    found = found.float().clone()  # not the caller's, nor a tensor of inference mode
    return found if size is None else _resized(found, size, what)


def _listed(images: Sequence[Any], what: str, size: int | None) -> Tensor:
    pictures = [image for image in images if isinstance(image, Image.Image)]
    check_depth(max((brightest_open(image) or 0 for image in pictures), default=0), what, _DIVIDE)
    try:
        each = [
            rgb(image) / 255 if isinstance(image, Image.Image) else _tensor(image, what) for image in images
        ]
    except InputError as error:
        raise InputError(f"{what}: {error}") from None
    if not each:
        raise InputError(f"{what} are none: give at least one.")
    if len({image.shape for image in each}) == 1:
        return as_inputs(torch.stack(each), what, size)
    if size is None:
        shapes = " and ".join(str(tuple(s)) for s in list(dict.fromkeys(i.shape for i in each))[:2])
        raise InputError(f"{what} are of several shapes, such as {shapes}: choose one size by `image_size`.")
    # all at once: of a black image alone nobody can say what white is
    scaled = _scaled(torch.cat([image.flatten() for image in each]), what)
    pixels = scaled.split([image.numel() for image in each])
    found = [
        as_inputs(own.view(image.shape)[None], what, size) for own, image in zip(pixels, each, strict=True)
    ]
    if len({image.shape for image in found}) > 1:
        raise InputError(f"{what} have different numbers of channels: give all of them in colour or in grey.")
    return torch.cat(found)


def _tensor(values: Any, what: str) -> Tensor:
    try:
        found = torch.as_tensor(values).detach().cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{what} must be tensors or arrays of numbers ({error}).") from None
    if found.layout != torch.strided or found.is_nested:
        raise InputError(f"{what} must be dense tensors: call their `to_dense()`, or stack what is nested.")
    return found


def _scaled(images: Tensor, what: str) -> Tensor:
    """Pixels in [0, 1]: bytes, also those that were made floats, and 16 bits are divided by their maximum."""
    if images.is_complex():
        raise InputError(f"{what} must be real numbers, not {images.dtype}.")
    if images.dtype == torch.uint16:
        shares = images.double() / 65535
        check_depth(float(shares.max()), what, _DIVIDE)
        return shares
    if images.dtype == torch.bool:
        return images.float()
    low, high = float(images.min()), float(images.max())
    if not images.is_floating_point():
        if not (low >= 0 and 1 < high <= 255):
            raise InputError(
                f"{what} are whole numbers from {low:.0f} to {high:.0f}, which says nothing of which one is "
                "white: give bytes in 0 ... 255, or floats in [0, 1]."
            )
        return images.double() / 255
    if low >= 0 and 1 < high <= 255 and bool((images == images.round()).all()):
        return images.double() / 255
    return images


def _channels_first(images: Tensor, what: str) -> Tensor:
    if images.ndim == 3:
        return images
    last = images.shape[1] not in (1, 3) and images.shape[-1] in (1, 3)
    if last:
        images = images.movedim(-1, 1)
    if images.ndim == 4 and images.shape[1] not in (1, 3):
        raise InputError(
            f"{what} of shape {tuple(images.shape)} have neither 1 nor 3 channels: give {SHAPES}."
        )
    return images


def _resized(images: Tensor, size: int, what: str) -> Tensor:
    if images.ndim not in (3, 4):
        raise InputError(f"`image_size` is for pictures, and {what} are of shape {tuple(images.shape)}.")
    grey = images.ndim == 3
    found = centre_square(images[:, None] if grey else images, size)
    return found[:, 0] if grey else found

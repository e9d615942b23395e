"""Image files to RGB pixels; whatever a decoder trips over becomes one sentence that names the file."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from dpbench.protocol import InputError
from dpbench.system import digest
from dpbench.system.paths import open_file

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""Pillow's decoders that are used, whatever a file is called: others start programs (EPS: Ghostscript)."""
LONG = 4
"""An image longer than this many times its width is cropped before it is resized, which saves memory."""
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What brings an image of that EXIF orientation upright."""
_GREY16 = ("I;16", "I;16B", "I;16L", "I;16N")
GREY16 = "16-bit greyscale"
"""The kind of a `Header`."""
_KINDS = {
    **dict.fromkeys(("1", "L"), "greyscale"),
    **dict.fromkeys(("LA", "La", "PA", "RGBA", "RGBa"), "transparent"),
    **dict.fromkeys((*_GREY16, "I"), GREY16),
    "P": "palette",
    "CMYK": "CMYK",
    "YCbCr": "YCbCr",
    "RGB": "",
}


@dataclass(frozen=True)
class Header:
    """What a file says of its image before the pixels are decoded.

    Attributes:
        size: width and height of the upright image, pixels.
        kind: what it is converted from (`greyscale`, `palette`, ...); empty where it is plain RGB.
        stamp: changes whenever the file is written or replaced.
    """

    size: tuple[int, int]
    kind: str
    stamp: tuple[int, ...]


def header(file: Path) -> Header:
    """The header of an image file.

    Raises:
        InputError: where the file is not there, not an image, or of a kind that has no RGB values.
    """
    with _opened(file) as (image, stamp):
        width, height = image.size
        return Header((height, width) if _turn(image) >= 5 else (width, height), _kind(image, file), stamp)


def pixels(file: Path, size: int | None, stamp: tuple[int, ...] | None = None) -> Tensor:
    """The image in `file`, upright and in RGB.

    Grey values are repeated, 16-bit ones scaled to 8 bits, transparent pixels laid over white; of several
    frames the first is taken.

    Args:
        file: an image in one of `FORMATS`.
        size: see `resize`; None keeps the size.
        stamp: of the header that was read earlier; a file that was changed since is refused.

    Returns:
        uint8 [3, H, W].

    Raises:
        InputError: where the file cannot be used.
    """
    with _opened(file) as (image, found):
        if stamp is not None and found != stamp:
            raise digest.changed(file)
        _kind(image, file)
        turn = _TURNS.get(_turn(image))  # conversion loses it
        upright = _rgb(image) if turn is None else _rgb(image).transpose(turn)
        return to_tensor(upright if size is None else resize(upright, size))


def brightest(file: Path) -> float:
    """The largest value of a file of the kind `GREY16`, as a share of white.

    Raises:
        InputError: where the file cannot be used.
    """
    with _opened(file) as (image, _):
        return float(_grey16(image).max())


def brightest_open(image: Image.Image) -> float | None:
    """`brightest` of an image that is open already; None for one of another kind."""
    return float(_grey16(image).max()) if _KINDS.get(image.mode) == GREY16 else None


def rgb(image: Image.Image) -> Tensor:
    """An image that is open already, as `pixels` has those of files: uint8 [3, H, W].

    Raises:
        InputError: for one of a kind that has no RGB values.
    """
    if image.mode not in _KINDS:
        raise InputError(f"a picture of Pillow's mode {image.mode} has no fixed range: convert it to RGB.")
    return to_tensor(_rgb(image))


def resize(image: Image.Image, size: int) -> Image.Image:
    """The short side resized to `size` pixels (bilinear, antialiased), then the centre square cut out."""
    scale = size / min(image.size)
    width, height = (max(size, round(side * scale)) for side in image.size)
    left, top = (width - size) // 2, (height - size) // 2
    if max(width, height) > LONG * size:
        (across, down), (x, y) = image.size, (image.size[0] / width, image.size[1] / height)
        box = (left * x, top * y, min((left + size) * x, across), min((top + size) * y, down))
        return image.resize((size, size), Image.Resampling.BILINEAR, box)
    return image.resize((width, height), Image.Resampling.BILINEAR).crop((left, top, left + size, top + size))


def to_tensor(image: Image.Image) -> Tensor:
    """uint8 [3, H, W] of an RGB image."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


@contextmanager
def _opened(file: Path) -> Iterator[tuple[Image.Image, tuple[int, ...]]]:
    """The image in `file`, not decoded yet, and the file's stamp; errors inside become InputErrors."""
    try:
        with open_file(file) as content, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a damaged EXIF block, say
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            status = os.fstat(content.fileno())
            with Image.open(content, formats=FORMATS) as image:
                yield image, (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
    except InputError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise InputError(
            f"{file} claims more than {Image.MAX_IMAGE_PIXELS:,} pixels, more than is safe: shrink it first."
        ) from None
    except UnidentifiedImageError:
        raise InputError(
            f"{file} is not an image that can be read (none of {', '.join(FORMATS)}): remove or replace it."
        ) from None
    except MemoryError:
        raise InputError(f"{file} needs more memory than there is: shrink it first.") from None
    except Exception as error:  # each decoder has its own ways to fail
        reason = (str(error).splitlines() or [""])[0].rstrip(".") or type(error).__name__
        raise InputError(
            f"{file} is not an image that can be read ({reason}): remove or replace it."
        ) from None


def _kind(image: Image.Image, file: Path) -> str:
    mode = image.mode
    if mode not in _KINDS or (mode == "I" and image.format not in ("PNG", "PPM")):  # there: 16 bits
        raise InputError(
            f"The values of {file} (Pillow's mode {mode}) have no fixed range: save it as an 8-bit RGB image "
            "under another name, and leave this one out."
        )
    return _KINDS[mode] or ("transparent" if "transparency" in image.info else "")


def _turn(image: Image.Image) -> int:
    """The EXIF orientation; 1 is upright."""
    # Pillow turns a TIFF by itself; and behind the pixels of a PNG it would look only by decoding them
    if image.format == "TIFF" or (image.format == "PNG" and "exif" not in image.info):
        return 1
    try:
        found = image.getexif().get(0x0112, 1)
    except Exception:  # a damaged block says nothing
        return 1
    return found if found in _TURNS else 1


def _grey16(image: Image.Image) -> np.ndarray:
    """Shares of white, float64 [H, W], of an image of 9 to 16 bits; a TIFF says how many they are."""
    bits = image.tag_v2.get(258, (16,))[0] if image.format == "TIFF" else 16
    return np.asarray(image).astype(np.float64) / (2 ** (bits if 8 < bits < 16 else 16) - 1)


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode in (*_GREY16, "I"):
        grey = _grey16(image) * 255
        return Image.fromarray(grey.round().clip(0, 255).astype(np.uint8)).convert("RGB")
    if _KINDS[image.mode] == "transparent" or "transparency" in image.info:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image.convert("RGB")

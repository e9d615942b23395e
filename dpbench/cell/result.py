"""What a cell hands over."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


def no_images() -> Tensor:
    """Where there is no picture."""
    return torch.empty(0, 3, 1, 1)


def picture(images: Tensor) -> Tensor:
    """What is shown of `images`, float32 [B, 3, H, W] on the CPU.

    Grey ones are repeated. Of a volume [B, C, D, H, W] it is the middle slice, and the first channel unless
    there are three. Signals and rows of a table have no picture.

    Example:
        >>> picture(torch.rand(2, 1, 5, 8, 8)).shape, picture(torch.rand(2, 30)).shape
        (torch.Size([2, 3, 8, 8]), torch.Size([0, 3, 1, 1]))
    """
    images = images.float().cpu()
    if images.ndim == 5:
        images = images[:, :, images.shape[2] // 2]
    if images.ndim != 4:
        return no_images()
    colours = images if images.shape[1] == 3 else images[:, :1]
    return colours.expand(-1, 3, -1, -1)


@dataclass(frozen=True)
class CellResult:
    """One row per image, then one per image of the start; `images[i]` and `originals[i]` are `rows[i]`'s.

    Attributes:
        rows: by the names of `dpbench.store.columns`.
        images: float32 [rows, 3, H, W] in [0, 1], on the CPU; empty [0, 3, 1, 1] where there are none.
        originals: likewise.
        log: when and where it was run, how it ended, and the traceback if it broke.
        out_of_memory: whether it failed because a graphics card's memory ran out.
        history: of the search, `Reconstruction.history`; empty where there was none.
        history_steps: likewise, `Reconstruction.history_steps`.
    """

    rows: list[dict[str, Any]]
    images: Tensor
    originals: Tensor
    log: str = ""
    out_of_memory: bool = False
    history: tuple[float, ...] = ()
    history_steps: tuple[int, ...] = ()

    @property
    def status(self) -> str:
        """`ok`, `failed` or `skipped`."""
        return self.rows[0]["status"]

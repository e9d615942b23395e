"""Where tensors are."""

from __future__ import annotations

import torch

from dpbench.protocol import InputError


def chosen(device: str | torch.device | None) -> str:
    """The device of that name; the graphics card, if there is one, where None is given.

    Raises:
        InputError: for another one than `cpu` and `cuda`, and for `cuda` where there is none.

    Example:
        >>> chosen("cpu")
        'cpu'
    """
    there = torch.cuda.is_available()
    if device is None:
        return "cuda" if there else "cpu"
    if str(device).partition(":")[0] not in ("cpu", "cuda"):
        raise InputError(f"`device` must be cpu or cuda, not {device!r}.")
    if str(device).startswith("cuda") and not there:
        raise InputError("`device` is cuda, and PyTorch finds no graphics card: leave it out, or give cpu.")
    return str(device)

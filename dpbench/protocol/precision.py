"""Arithmetic in full float32, where a graphics card would round to TF32."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """TF32 off on a graphics card within the block; nothing changes on other devices.

    TF32 rounds to 1e-3. That passes for a wrong per-sample gradient or a wrong compiled program, decides when
    DLG stops, and blurs the likelihoods that an informed attacker compares.
    """
    if device.type != "cuda":
        yield
        return
    cudnn, products = torch.backends.cudnn, torch.get_float32_matmul_precision()
    kept = {"benchmark": cudnn.benchmark, "deterministic": cudnn.deterministic}
    torch.set_float32_matmul_precision("highest")
    try:
        with cudnn.flags(enabled=cudnn.enabled, allow_tf32=False, **kept):
            yield
    finally:
        torch.set_float32_matmul_precision(products)

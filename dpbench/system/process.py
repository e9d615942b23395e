"""Settings of a process that runs cells, which a library must not touch."""

from __future__ import annotations

import os
import warnings

import torch

_EXPECTED_WARNINGS = (
    "Secure RNG turned off",
    "Full backward hook is firing",
    "Optimal order is the largest alpha",
)


def configure() -> None:
    """Flush denormals, and keep warnings that are no news to ourselves."""
    torch.set_flush_denormal(True)  # denormals of a converging search cost the CPU tenfold
    for message in _EXPECTED_WARNINGS:
        warnings.filterwarnings("ignore", message=message)


def one_thread() -> None:
    """One thread for PyTorch on the CPU, unless OMP_NUM_THREADS says otherwise."""
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1)

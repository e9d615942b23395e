"""Settings of a process that runs cells, which a library must not touch."""

from __future__ import annotations

import ctypes
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_EXPECTED_WARNINGS = (
    "Secure RNG turned off",
    "Full backward hook is firing",
    "Optimal order is the largest alpha",
    "Please use the new API settings to control TF32",  # PyTorch 2.9, where they are read
)
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
"""What `mallopt` calls them (malloc.h)."""


def configure() -> None:
    """Flush denormals, let a graphics card use its fast arithmetic, and keep expected warnings quiet.

    TF32 and cuDNN's choice among algorithms are for searches; whoever compares close numbers works within
    `dpbench.protocol.full_precision`.
    """
    torch.set_flush_denormal(True)  # denormals of a converging search cost the CPU tenfold
    _keep_memory()
    if torch.cuda.is_available():
        torch.backends.cudnn.benchmark = True
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
    for message in _EXPECTED_WARNINGS:
        warnings.filterwarnings("ignore", message=message)


def _keep_memory() -> None:
    """Has glibc keep up to a gigabyte of freed memory for the next tensors; nothing with another allocator.

    By default it returns large tensors' memory to the kernel, which clears every page of the next ones. That
    takes a quarter of a search's time in a network with weights of ten megabytes.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return
    for option, megabytes in ((_TRIM_THRESHOLD, 1024), (_TOP_PAD, 64), (_MMAP_THRESHOLD, 32)):
        mallopt(option, megabytes << 20)


@contextmanager
def clean_state() -> Iterator[None]:
    """Within the block, PyTorch computes as in a new process, and what code of others changes is undone.

    Gradients are recorded, new tensors are float32, autocast is off; after the block these settings and the
    working directory are as they were.
    """
    dtype, folder = torch.get_default_dtype(), os.open(".", os.O_RDONLY)  # it may have no name any more
    torch.set_default_dtype(torch.float32)
    try:
        with (
            torch.inference_mode(False),
            torch.enable_grad(),
            torch.autocast("cpu", enabled=False),
            torch.autocast("cuda", enabled=False),
        ):
            yield
    finally:
        torch.set_default_dtype(dtype)
        os.fchdir(folder)
        os.close(folder)


def one_thread() -> None:
    """One thread for PyTorch on the CPU, unless OMP_NUM_THREADS says otherwise."""
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1)


def is_stopped(number: int) -> bool:
    """Whether process `number` of this machine is stopped (Ctrl-Z, SIGSTOP); False where nobody knows."""
    try:
        with open(f"/proc/{number}/stat", encoding="utf-8", errors="replace") as file:
            state = (
                file.read().rpartition(")")[2].split()[0]
            )  # a name in brackets, which may hold any, is before
    except (OSError, IndexError):
        return False
    return state in ("T", "t")

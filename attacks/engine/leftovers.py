"""Libraries that a killed compiler left unfinished in Inductor's cache; loading one kills the process."""

from __future__ import annotations

import contextlib
import functools
import struct
import time
from pathlib import Path

IDLE = 300.0
"""Seconds without a change after which no compiler is still at work on a file."""


def finished(library: Path) -> bool:
    """Whether an ELF file has all that its header announces; the linker writes the header last.

    Raises:
        OSError: where it cannot be read.
    """
    with library.open("rb") as file:
        header = file.read(64)
    if len(header) < 64 or header[:5] != b"\x7fELF\x02":  # 64-bit, as PyTorch is
        return False
    order = "<" if header[5] == 1 else ">"
    (sections,) = struct.unpack_from(f"{order}Q", header, 40)
    size, count = struct.unpack_from(f"{order}HH", header, 58)
    return sections > 0 and library.stat().st_size >= sections + size * count


@functools.cache
def remove_unfinished(folder: Path) -> None:
    """Delete the unfinished libraries below `folder`, once in each process; Inductor makes them again."""
    for library in folder.rglob("*.so"):
        with contextlib.suppress(OSError):  # another process's, or just removed by it
            if time.time() - library.stat().st_mtime > IDLE and not finished(library):
                library.unlink()

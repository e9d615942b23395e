"""Paths that a user gives, and files that are opened without waiting for anybody."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO

from dpbench.protocol import InputError


def expanded(path: str | Path) -> Path:
    """`path` with `~` or `~user` spelt out.

    Raises:
        InputError: where there is no such user or home folder, or no file can have that name.

    Example:
        >>> expanded("a/b.pt") == Path("a/b.pt")
        True
    """
    if "\0" in str(path):
        raise InputError(f"{str(path)!r} cannot be the name of a file.")
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise InputError(f"The home folder in {path} is not known: give the path in full.") from None


def open_file(path: Path) -> BinaryIO:
    """The plain file at `path`, open for reading; a pipe or a device is refused, not waited for.

    Raises:
        InputError: where there is no such file, or it cannot be read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise InputError(f"There is no file {path}.") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({getattr(error, 'strerror', None) or error}).") from None
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        kind = "a folder" if stat.S_ISDIR(mode) else "a pipe or a device"
        raise InputError(f"{path} is {kind}, not a file: give a plain file.")
    return os.fdopen(descriptor, "rb")

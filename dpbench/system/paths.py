"""Paths that a user gives, and files that are opened without waiting for anybody."""

from __future__ import annotations

import os
import stat
import tomllib
from pathlib import Path
from typing import Any, BinaryIO, Literal

from dpbench.protocol import InputError

LARGEST_TOML = 1_000_000
"""Bytes of a configuration or a suite, at most."""


def expanded(path: str | Path) -> Path:
    """`path` with `~` or `~user` spelt out.

    Raises:
        InputError: where there is no such user or home folder, no file can have that name, or it is no path.

    Example:
        >>> expanded("a/b.pt") == Path("a/b.pt")
        True
    """
    if not isinstance(path, str | os.PathLike):  # from Python
        raise InputError(f"A path must be text or a Path, not {path!r}.")
    if not str(path):
        raise InputError("An empty path names nothing: give a path, or . for this folder.")
    if "\0" in str(path):
        raise InputError(f"{str(path)!r} cannot be the name of a file.")
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise InputError(f"The home folder in {path} is not known: give the path in full.") from None


def absolute(path: str | Path) -> Path:
    """As `expanded`, from the root on.

    Raises:
        InputError: as `expanded`, or where the current folder is gone.
    """
    try:
        return expanded(path).absolute()
    except OSError:
        raise InputError(f"The current folder is gone: give {path} in full, or go to another one.") from None


def kind_of(path: Path) -> Literal["file", "folder", "other"] | None:
    """What lies at `path`: `other` is a pipe or a device, None is nothing.

    Raises:
        InputError: where that cannot be told: the name is too long, or the folder around it is closed to us.
    """
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from None
    return "folder" if stat.S_ISDIR(mode) else "file" if stat.S_ISREG(mode) else "other"


def check_place(folder: str | Path) -> None:
    """InputError where something else stands in the place of a folder for results."""
    if kind_of(absolute(folder)) not in (None, "folder"):
        raise InputError(f"{folder} is a file, not a folder for results: name another with `out`.")


def listed(folder: Path) -> list[str]:
    """Names of what lies in `folder`, in order; none where there is no such folder.

    Raises:
        InputError: it is a file, or it cannot be read.
    """
    try:
        return sorted(os.listdir(folder))
    except FileNotFoundError:
        return []
    except NotADirectoryError:
        raise InputError(f"{folder} is a file where a folder belongs: move it away.") from None
    except (OSError, ValueError) as error:
        raise _unreadable(folder, error) from None


def open_file(path: Path) -> BinaryIO:
    """The plain file at `path`, open for reading; a pipe or a device is refused, not waited for.

    Raises:
        InputError: where there is no such file, or it cannot be read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"There is no file {path}.") from None
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from None
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        kind = "a folder" if stat.S_ISDIR(mode) else "a pipe or a device"
        raise InputError(f"{path} is {kind}, not a file: give a plain file.")
    return os.fdopen(descriptor, "rb")


def read_toml(path: Path) -> dict[str, Any]:
    """The contents of a TOML file of unknown origin.

    Raises:
        InputError: it cannot be read, is too large, or is no TOML.
    """
    try:
        with open_file(path) as file:
            content = file.read(LARGEST_TOML + 1)
    except OSError as error:
        raise _unreadable(path, error) from None
    if len(content) > LARGEST_TOML:
        raise InputError(f"{path} is larger than {LARGEST_TOML} bytes: that is no configuration of a run.")
    try:
        return tomllib.loads(content.decode("utf-8-sig"))  # editors on Windows begin a file with a mark
    except (ValueError, RecursionError) as error:  # TOML, Unicode, digits without end, brackets without end
        raise InputError(f"{path} is damaged, or no TOML that can be read ({error}).") from None


def _unreadable(path: Path, error: Exception) -> InputError:
    return InputError(f"{path} cannot be read ({getattr(error, 'strerror', None) or error}).")

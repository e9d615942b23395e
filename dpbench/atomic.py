"""Files that are either wholly there or not there at all."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dpbench.protocol import InputError

PREFIX, SUFFIX = ".writing-", ".tmp"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary name beside `path`; what was written there takes its place when the block ends well.

    The data reach the disk before the name changes, so a crash at any moment leaves the old file or the new.
    If the block raises, the old file stays and the temporary one is removed.

    Args:
        path: the file to make or replace; its folder must exist.

    Yields:
        The temporary path to write to.

    Raises:
        InputError: the disk is full or the folder cannot be written.
    """
    with refused_as_sentence(path):
        handle, name = tempfile.mkstemp(prefix=PREFIX, suffix=SUFFIX, dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            temporary.chmod(0o666 & ~_umask())  # mkstemp gives 0600; results are for everyone the user allows
            _sync(temporary)
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        _sync(path.parent)


@contextmanager
def refused_as_sentence(path: Path) -> Iterator[None]:
    """Turn the operating system's refusal to write `path` into an `InputError` that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise InputError(
                f"The disk is full: {path} was not written, everything written before is intact; "
                "free some space and give the same command again to go on."
            ) from error
        raise InputError(
            f"Cannot write {path} ({error.strerror or error}); choose a folder you may write to with --out."
        ) from error


def is_leftover(path: Path) -> bool:
    """Whether `path` is a temporary file that a killed process left behind."""
    return path.name.startswith(PREFIX) and path.name.endswith(SUFFIX)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask

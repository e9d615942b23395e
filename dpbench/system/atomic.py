"""Files that are either wholly there or not there at all."""

from __future__ import annotations

import errno
import os
import platform
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from dpbench.protocol import InputError
from dpbench.system.locks import is_still, lock

PREFIX, SUFFIX = ".writing-", ".tmp"
LONG = 24 * 3600
"""Seconds after which another machine's unlocked file is nobody's: its locks may not reach this machine."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary name beside `path`; what was written there takes its place when the block ends well.

    The data reach the disk before the name changes, so a crash at any moment leaves the old file or the new.
    If the block raises, the old file stays and the temporary one is removed. It is locked until then, so that
    `clear_leftovers` can tell it from one that a killed process left.

    Args:
        path: the file to make or replace; its folder must exist.

    Yields:
        The temporary path to write to.

    Raises:
        InputError: the disk is full or the folder cannot be written.
    """
    with refused_as_sentence(path):
        temporary, descriptor = _locked_file(path.parent)
        try:
            yield temporary
            temporary.chmod(0o666 & ~_umask())  # mkstemp gives 0600; results are for everyone the user allows
            _sync(temporary)
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        finally:
            os.close(descriptor)
        _sync(path.parent)


def written(path: Path, write: Callable[[Path], object]) -> Path:
    """`path`, after `write` has written the file under its temporary name; as `replacing`."""
    with replacing(path) as temporary:
        write(temporary)
    return path


def made_folder(folder: Path) -> None:
    """Make `folder`, and those around it, unless it is there.

    Raises:
        InputError: where it cannot be made.
    """
    with refused_as_sentence(folder):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except FileNotFoundError as error:  # nobody moved anything: a system may refuse so, as in /proc
            raise InputError(f"The folder {folder} cannot be made; name another one.") from error


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
        if error.errno == errno.ENOENT:
            raise InputError(
                f"The folder {path.parent} is gone, so {path.name} was not written: it was moved or removed "
                "while it was in use; put it back and give the same command again to go on."
            ) from error
        raise InputError(
            f"Cannot write {path} ({error.strerror or error}); name a folder that you may write to."
        ) from error


def is_temporary(path: Path) -> bool:
    """Whether `path` is a file that somebody writes, or left behind when killed."""
    return path.name.startswith(PREFIX) and path.name.endswith(SUFFIX)


def clear_leftovers(folder: Path) -> None:
    """Remove the temporary files of killed processes; those that somebody writes, anywhere, stay.

    A file goes if its lock is free and this machine wrote it, or if its lock is free and it is a day old.
    Where the file system has no locks, all stay.
    """
    if not folder.is_dir():
        return
    with os.scandir(folder) as entries:
        found = [Path(entry.path) for entry in entries if is_temporary(Path(entry.name))]
    for path in found:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
        except OSError:  # finished in the meantime, or somebody else's
            continue
        try:
            ours = path.name.startswith(_own_prefix())
            if (ours or time.time() - os.fstat(descriptor).st_mtime > LONG) and lock(descriptor):
                path.unlink(missing_ok=True)
        finally:
            os.close(descriptor)


def _locked_file(folder: Path) -> tuple[Path, int]:
    while True:
        descriptor, name = tempfile.mkstemp(prefix=_own_prefix(), suffix=SUFFIX, dir=folder)
        # another process may have taken the new file for a leftover before it was locked
        if lock(descriptor) is not False and is_still(Path(name), descriptor):
            return Path(name), descriptor
        os.close(descriptor)


def _own_prefix() -> str:
    return f"{PREFIX}{re.sub('[^A-Za-z0-9.]', '', platform.node())[:64]}-"


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

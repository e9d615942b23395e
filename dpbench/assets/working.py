"""Folders that downloads are kept in until they are converted, and what killed processes left of them."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dpbench.system import supervised
from dpbench.system.locks import lock

PREFIX, LOCK = ".fetch-", "lock"
LONG = 24 * 3600
"""Seconds after which a folder without a lock file is taken for a leftover."""


@contextmanager
def working_folder(home: Path) -> Iterator[Path]:
    """An empty folder below `home`, removed in the end, even if this process is killed.

    What killed processes left all the same, in a power cut say, is removed first.
    """
    for path in home.glob(f"{PREFIX}*"):
        if _left(path):
            shutil.rmtree(path, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=PREFIX, dir=home, ignore_cleanup_errors=True) as name:
        descriptor = os.open(Path(name) / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        remover = supervised.start(Path(name))
        try:
            lock(descriptor)
            work = Path(name) / "work"
            work.mkdir()
            yield work
        finally:
            remover.terminate()
            remover.wait()
            os.close(descriptor)


def _left(path: Path) -> bool:
    """Whether nobody works in folder `path` any more: its lock is free, or there has been none for a day."""
    try:
        descriptor = os.open(path / LOCK, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        try:
            return time.time() - path.stat().st_mtime > LONG
        except OSError:  # gone by now
            return False
    try:
        return lock(descriptor) is True
    finally:
        os.close(descriptor)

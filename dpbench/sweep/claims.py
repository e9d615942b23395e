"""Who runs which cell: locked files, so that several processes or nodes share one folder of results.

A cell in hand is a file in the run's folder `running`, locked (flock) by the process that has it. The kernel
lets go of the lock when that process ends, however it ends, so nothing has to be judged by its age. Where a
file system has no locks, every process takes every cell: work is done twice, and results stay whole.
"""

from __future__ import annotations

import fcntl
import os
import platform
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from dpbench.protocol import InputError
from dpbench.system.atomic import refused_as_sentence
from dpbench.system.locks import is_still, lock
from dpbench.system.paths import listed
from dpbench.system.process import is_stopped


class Claims:
    """The cells this process has in hand; a context manager that lets go of them all.

    Args:
        folder: where the locked files lie; made when it is needed, removed when nobody needs it any more.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._held = folder, {}

    def __enter__(self) -> Claims:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for key in list(self._held):
            self.release(key)
        with suppress(InputError):  # it may have become unreadable: whatever ended the run is to be said
            for key in listed(self._folder):  # left behind by processes that were killed
                with suppress(InputError):  # a link, say: it is none of ours
                    if self.take(key):
                        self.release(key)
        with suppress(OSError):  # others are still at work
            self._folder.rmdir()

    def take(self, key: str) -> bool:
        """Take `key` in hand; False where another process has it.

        Raises:
            InputError: the disk is full or the folder cannot be written.
        """
        path = self._folder / key
        with refused_as_sentence(path):
            descriptor = self._open(path)
            if lock(descriptor) is False or not is_still(path, descriptor):
                os.close(descriptor)
                return False
            os.ftruncate(descriptor, 0)
            os.write(descriptor, _name(os.getpid()).encode())
        self._held[key] = descriptor
        return True

    def _open(self, path: Path) -> int:
        while True:
            self._folder.mkdir(exist_ok=True)
            # another process, the last at work, may just have removed the folder
            with suppress(FileNotFoundError):
                # a link of that name could lead to any file, which `take` would empty
                return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)

    def release(self, key: str) -> None:
        """Let go of `key`.

        Raises:
            InputError: the folder cannot be written.
        """
        with refused_as_sentence(self._folder / key):
            try:
                (self._folder / key).unlink(missing_ok=True)
            finally:
                os.close(self._held.pop(key))


def running(folder: Path) -> dict[str, str]:
    """The cells in hand anywhere: key to machine and process, and whether that is stopped.

    Raises:
        InputError: the folder cannot be read.
    """
    found = {}
    for key in listed(folder):
        try:
            descriptor = os.open(folder / key, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:  # gone, or none of ours
            continue
        try:
            if lock(descriptor, fcntl.LOCK_SH) is False:
                found[key] = _with_state(os.read(descriptor, 1000).decode(errors="replace"))
        except OSError:  # a folder, say
            continue
        finally:
            os.close(descriptor)
    return found


def _name(process: int | str) -> str:
    return f"{platform.node()}, process {process}"


def _with_state(who: str) -> str:
    number = who.rpartition(" ")[2]
    ours = number.isdecimal() and who == _name(number)
    return f"{who}, stopped" if ours and is_stopped(int(number)) else who

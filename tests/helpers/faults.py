"""Faults at single file calls: a layer over `os` and `open` that lets the k-th call on a folder fail."""

from __future__ import annotations

import builtins
import errno
import io
import os
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

KILL = "kill"
KINDS = (KILL, "ENOSPC", "EIO", "EROFS", "ESTALE", "EDQUOT")
KILLED, CRASHED = 77, 99
"""Exit statuses of a process that was killed, and of one that ended in a traceback."""
LONGEST = 300
"""Seconds after which a process hangs."""
_CHANGING = ("replace", "rename", "unlink", "remove", "mkdir", "rmdir", "chmod")
_LOOKING = ("listdir", "scandir")
_ON_DESCRIPTORS = ("write", "fsync", "ftruncate")
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_true_open = io.open


@dataclass(frozen=True)
class Fault:
    """What goes wrong.

    Attributes:
        kind: one of `KINDS`.
        at: the number of the call that fails, from 0.
        lasting: whether all later calls that change something fail, too, as on a disk that stays full.
    """

    kind: str
    at: int
    lasting: bool = False


@dataclass(frozen=True)
class Ended:
    """How a process ended: its exit status, its stderr, its calls, and the name of the one that failed."""

    status: int
    said: str
    calls: int
    failed: str


def run(work: Callable[[], int], root: Path, fault: Fault | None, scratch: Path) -> Ended:
    """Does `work` in a forked process whose calls on files below `root` are counted, and one fails.

    Args:
        work: returns the exit status.
        root: the folder.
        fault: what goes wrong, if anything.
        scratch: a folder for what the process has to tell.
    """
    said, told = scratch / "stderr", scratch / "calls"
    told.write_text("")
    child = os.fork()
    if child == 0:
        _child(work, _Layer(root, fault, os.open(told, os.O_WRONLY)), said)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    calls = told.read_text().splitlines()
    return Ended(
        status, said.read_text(), len(calls), calls[fault.at] if fault and fault.at < len(calls) else ""
    )


def _child(work: Callable[[], int], layer: _Layer, said: Path) -> None:
    status = CRASHED
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(LONGEST)
    try:
        os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
        sys.stderr = _true_open(2, "w", closefd=False)
        layer.install()
        status = work()
    except BaseException:
        traceback.print_exc()
    sys.stderr.flush()
    os._exit(status)


class _Layer:
    """Counts the calls that concern `root` and lets one fail; a process does not get rid of it again."""

    def __init__(self, root: Path, fault: Fault | None, told: int) -> None:
        self._root, self._fault, self._told, self._count = str(root), fault, told, 0
        self._tell = os.write

    def install(self) -> None:
        for name in _CHANGING:
            self._wrap(name, lambda target, *_, **__: (target, True))
        for name in _LOOKING:
            self._wrap(name, lambda target=".", *_, **__: (target, False))
        for name in _ON_DESCRIPTORS:
            self._wrap(name, lambda descriptor, *_, **__: (_path_of(descriptor), True))
        self._wrap("open", lambda target, flags, *_, **__: (target, bool(flags & _WRITING)))
        builtins.open = io.open = self._opened

    def call(self, name: str, target: Any, changes: bool) -> None:
        """Fails, if this is a call that has to."""
        number, self._count = self._count, self._count + 1
        self._tell(self._told, f"{name} {Path(str(target)).name}\n".encode())
        fault = self._fault
        if fault is None or not (number == fault.at or (fault.lasting and changes and number > fault.at)):
            return
        if fault.kind == KILL:
            os._exit(KILLED)
        code = getattr(errno, fault.kind)
        raise OSError(code, os.strerror(code), str(target))

    def _concerns(self, target: Any) -> bool:
        if isinstance(target, int):
            target = _path_of(target)
        return isinstance(target, str | Path) and f"{target}/".startswith(f"{self._root}/")

    def _wrap(self, name: str, describe: Callable[..., tuple[Any, bool]]) -> None:
        true = getattr(os, name)

        def wrapped(*given: Any, **more: Any) -> Any:
            target, changes = describe(*given, **more)
            if self._concerns(target):
                self.call(name, target, changes)
            return true(*given, **more)

        setattr(os, name, wrapped)

    def _opened(self, file: Any, mode: str = "r", *given: Any, **more: Any) -> Any:
        changes = bool(set(mode) & set("wax+"))
        if not self._concerns(file):
            return _true_open(file, mode, *given, **more)
        if not isinstance(file, int):  # a descriptor was opened before
            self.call("open", file, changes)
        if not changes:
            return _true_open(file, mode, *given, **more)
        return self._writable(file, mode, *given, **more)

    def _writable(
        self,
        file: Any,
        mode: str,
        buffering: int = -1,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
        closefd: bool = True,
        opener: Any = None,
    ) -> Any:
        raw = _Raw(file, mode.replace("b", "").replace("t", ""), closefd, opener)
        raw.layer = self
        buffered = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        return buffered if "b" in mode else io.TextIOWrapper(buffered, encoding, errors, newline)


class _Raw(io.FileIO):
    """A file whose writes are calls, too; one that fails has written half."""

    layer: _Layer

    def write(self, data: Any) -> int:
        """As `io.FileIO`."""
        whole = bytes(data)
        done = super().write(whole[: len(whole) // 2])
        self.layer.call("write", _path_of(self.fileno()), changes=True)
        return done + super().write(whole[done:])


def _path_of(descriptor: Any) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}")
    except OSError:
        return ""

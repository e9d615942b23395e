"""Runs one command for a program, and ends it with all it started once that program is gone, in any way.

Run as a script: `python supervised.py PID FOLDER [COMMAND...]`. PID is the program's own; FOLDER, where the
command works, is removed if the command had to be ended. Without a command it only waits for that program to
end, and removes its folder. It imports nothing of dpbench, to start at once.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

PYTHON = sys.executable
INTERVAL = 0.1
"""Seconds between two looks."""


def main(asker: int, folder: str, command: list[str]) -> int:
    """The command's exit status; 1 where it had to be ended, because `asker` is gone or sent SIGTERM."""
    stopped = False

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal stopped
        stopped = True

    signal.signal(signal.SIGTERM, stop)
    # a group of its own: npm and pip start others
    child = subprocess.Popen(command, start_new_session=True) if command else None
    while child is None or child.poll() is None:
        if stopped or os.getppid() != asker:
            if child is not None:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()
            shutil.rmtree(folder, ignore_errors=True)
            return 1
        time.sleep(INTERVAL)
    return child.returncode


def start(folder: Path, command: Sequence[str] = (), **options: Any) -> subprocess.Popen:
    """Run `command` under supervision by this process; `options` are those of `subprocess.Popen`.

    Args:
        folder: is removed if the command, or this process where there is none, has to be ended.
        command: may be empty.
        **options: such as `stdout`.
    """
    script = [PYTHON, "-I", __file__, str(os.getpid()), str(folder), *command]
    # in a session of its own: Ctrl-C is for this process, which passes it on
    return subprocess.Popen(script, stdin=subprocess.DEVNULL, start_new_session=True, **options)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2], sys.argv[3:]))

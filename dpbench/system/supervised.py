"""Runs one command for a program, and ends it with all it started once that program is gone, in any way.

Run as a script: `python supervised.py PID FOLDER COMMAND...`. PID is the program's own; FOLDER, where the
command works, is removed if the command had to be ended. It imports nothing of dpbench, to start at once.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from types import FrameType

INTERVAL = 0.1
"""Seconds between two looks."""


def main(asker: int, folder: str, command: list[str]) -> int:
    """The command's exit status; 1 where it had to be ended, because `asker` is gone or sent SIGTERM."""
    stopped = False

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal stopped
        stopped = True

    signal.signal(signal.SIGTERM, stop)
    child = subprocess.Popen(command, start_new_session=True)  # a group of its own: npm and pip start others
    while child.poll() is None:
        if stopped or os.getppid() != asker:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            shutil.rmtree(folder, ignore_errors=True)
            return 1
        time.sleep(INTERVAL)
    return child.returncode


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2], sys.argv[3:]))

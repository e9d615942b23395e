"""kill -9 of whatever runs a sweep, at random moments."""

from __future__ import annotations

import os
import random
import re
import signal
import threading
import time
from pathlib import Path

from dpbench.run import main


def kill_at_random(folder: Path, moments: int, seed: int, over: threading.Event) -> list[int]:
    """Kills, `moments` times, a process that has just written of itself in a cell's log."""
    generator, killed, seen = random.Random(seed), [], set()
    while len(killed) < moments and not over.is_set():
        fresh = set(folder.glob("logs/*.log")) - seen
        pids = {int(pid) for log in fresh for pid in re.findall(r"process (\d+):", log.read_text())}
        seen |= fresh
        time.sleep(generator.uniform(0, 0.2))
        for pid in sorted(pids - {os.getpid(), *killed})[:1]:
            try:
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)
            except ProcessLookupError:
                pass
    return killed


def with_kills(words: list[str], folder: Path, moments: int, seed: int) -> int:
    """Runs `words` here while its workers are killed; returns how many were."""
    over, killed = threading.Event(), []
    killer = threading.Thread(target=lambda: killed.extend(kill_at_random(folder, moments, seed, over)))
    killer.start()
    try:
        status = main([*words, "--out", str(folder), "--quiet"])
    finally:
        over.set()
        killer.join()
    if status:  # by chance all tries of one cell were killed: it failed, and is run again on request
        assert main([*words, "--out", str(folder), "--quiet"]) == 0
    return len(killed)


def wait_for_the_end_of(pid: int) -> None:
    deadline = time.monotonic() + 20
    while Path(f"/proc/{pid}").exists() and " Z " not in Path(f"/proc/{pid}/stat").read_text():
        assert time.monotonic() < deadline, f"{pid} lives"
        time.sleep(0.05)

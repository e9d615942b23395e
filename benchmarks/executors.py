"""What a cell costs beyond its attack, and what a second worker gains.

    python -m benchmarks.executors              # 1,000 cells that do nothing; 3 pairs of runs on real cells
    python -m benchmarks.executors 100 1        # fewer

The first figure is the whole command's time, start and export included, over its cells. The second runs
the same cells of a real attack with one worker and with two, side by side in time, and takes the median.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

INSTANT = Path(__file__).parent / "instant"


def seconds(*words: str) -> float:
    """The time of one command."""
    paths = [str(INSTANT), str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        line = [sys.executable, "-m", "dpbench.run", *words, "--out", f"{folder}/run", "--quiet"]
        subprocess.run(line, check=True, env=environment)
        return time.perf_counter() - begun


def overhead(cells: int) -> None:
    """Cells whose attack does nothing: all that is left is overhead."""
    words = ["--attack", "instant", "--defense", "none", "clip", "--batch-size", "1", "--device", "cpu"]
    words += ["--batch-seed", *map(str, range(cells // 5))]  # two floors, the noise floor and two attacks
    for name in ("local", "workers"):
        took = seconds(*words, "--executor", name)
        print(f"{name:8s} {cells} cells in {took:.1f} s: {took / cells:.4f} s per cell", flush=True)


def gain(pairs: int) -> None:
    """A real attack with one worker and with two."""
    words = ["--defense", "none", "clip", "--batch-size", "4", "--iterations", "400", "--device", "cpu"]
    words += ["--batch-seed", *map(str, range(8)), "--executor", "workers", "--workers"]
    found = []
    for _ in range(pairs):
        one, two = seconds(*words, "1"), seconds(*words, "2")
        found.append(one / two)
        print(f"one worker {one:.1f} s, two {two:.1f} s: {found[-1]:.2f} times", flush=True)
    print(f"median {statistics.median(found):.2f} times")


if __name__ == "__main__":
    overhead(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
    gain(int(sys.argv[2]) if len(sys.argv) > 2 else 3)

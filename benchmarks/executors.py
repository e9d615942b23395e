"""The cost of a cell beyond its attack, and the gain from more workers, in cells a minute.

    python -m benchmarks.executors                      # 1,000 cells that do nothing; 3 rounds of real ones
    python -m benchmarks.executors 100 1                # fewer
    python -m benchmarks.executors 0 1 --device cuda    # only 1, 2 and 4 workers that share one graphics card

The first figure is the time of the whole command, start and export included, divided by its cells. The second
runs the same cells of a real attack with each number of workers in turn, and takes the median. Its clock
starts when as many cells have ended as there are workers, so that starting them is left out. If a card has
too little memory for all workers, a warning says how many remain.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import tyro
from tyro.conf import Positional

from benchmarks.measure import show

INSTANT = Path(__file__).parent / "instant"
WORKERS = {"cpu": (1, 2), "cuda": (1, 2, 4)}
ATTACKED = {
    "cpu": ("--batch-size", "4", "--iterations", "400", "--engine", "eager"),
    "cuda": ("--model", "resnet20", "--batch-size", "8", "--iterations", "1000", "--engine", "graph"),
}
"""On a graphics card large enough to take some seconds, too small to fill it."""


@dataclass(frozen=True)
class Options:
    """What a cell costs beyond its attack, and what more workers gain.

    Attributes:
        cells: how many that do nothing; 0 leaves the first figure out.
        rounds: runs of real cells with each number of workers.
        device: `cpu` or `cuda`; of a machine with several graphics cards the first is used.
        out: the CSV's folder.
    """

    cells: Positional[int] = 1000
    rounds: Positional[int] = 3
    device: str = "cpu"
    out: Path = Path("results/benchmarks")


def run(folder: Path, *words: str) -> float:
    """The time of one command, which writes into `folder`."""
    paths = [str(INSTANT), str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    card = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "CUDA_VISIBLE_DEVICES": card,
    }
    begun = time.perf_counter()
    line = [sys.executable, "-m", "dpbench.run", *words, "--out", str(folder), "--quiet"]
    subprocess.run(line, check=True, env=environment)
    return time.perf_counter() - begun


def overhead(cells: int, device: str) -> None:
    """Cells whose attack does nothing: all that is left is overhead."""
    words = ["--attack", "instant", "--defense", "none", "clip", "--batch-size", "1", "--device", device]
    words += ["--batch-seed", *map(str, range(cells // 5))]  # two floors, the noise floor and two attacks
    for name in ("local", "workers"):
        with tempfile.TemporaryDirectory() as folder:
            took = run(Path(folder) / "run", *words, "--executor", name)
        print(f"{name:8s} {cells} cells in {took:.1f} s: {took / cells:.4f} s per cell", flush=True)


def gain(rounds: int, device: str, out: Path) -> None:
    """A real attack with one worker and with more."""
    words = ["--defense", "none", "clip", *ATTACKED[device], "--device", device]
    words += ["--batch-seed", *map(str, range(8)), "--executor", "workers", "--workers"]
    found: dict[int, list[float]] = {}
    for _ in range(rounds):
        for count in WORKERS[device]:
            with tempfile.TemporaryDirectory() as folder:
                run(Path(folder) / "run", *words, str(count))
                found.setdefault(count, []).append(cells_a_minute(Path(folder) / "run", count))
            medians = {count: statistics.median(rates) for count, rates in found.items()}
            rows = [
                {"workers": count, "cells/minute": rate, "times one": rate / medians[1]}
                for count, rate in medians.items()
            ]
            show(f"Workers on one {device}", rows, out / "executors.csv")


def cells_a_minute(folder: Path, workers: int) -> float:
    """Of a finished run: from the end of the cell that makes as many as there are workers."""
    ends = sorted(path.stat().st_mtime for path in folder.glob("cells/*.safetensors"))
    return 60 * (len(ends) - workers) / (ends[-1] - ends[workers - 1])


def main(options: Options) -> None:
    """Measure and show."""
    if options.cells:
        overhead(options.cells, options.device)
    gain(options.rounds, options.device, options.out)


if __name__ == "__main__":
    main(tyro.cli(Options))

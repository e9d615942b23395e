"""The main command of this checkout and of another one, in turns: wall time and CPU time.

    git worktree add ../old e1b8842
    python -m benchmarks.main_command --against ../old
    python -m benchmarks.main_command --against ../old --words="--executor workers"   # options for this one

`ratio` is the other checkout's time divided by this one's. Each run is a process of its own, with an Inductor
cache of its own, and writes into a folder that is removed. Run it on an idle machine.
"""

from __future__ import annotations

import os
import resource
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import tyro

from benchmarks.measure import show

MAIN = ("--defense", "dp", "--eps", "1", "--device", "cpu", "--quiet")


@dataclass(frozen=True)
class Options:
    """This checkout beside another one.

    Attributes:
        against: the other checkout.
        words: more options of the command, for this checkout only.
        repeats: of each.
        out: the CSV's folder.
    """

    against: Path
    words: str = ""
    repeats: int = 2
    out: Path = Path("results/benchmarks")


def run(checkout: Path, words: tuple[str, ...]) -> tuple[float, float]:
    """Wall time and CPU time of one run, its workers' included, in seconds."""
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {
            "PYTHONPATH": str(checkout.resolve()),
            "TORCHINDUCTOR_CACHE_DIR": f"{folder}/inductor",
        }
        line = [sys.executable, "-m", "dpbench.run", *MAIN, *words, "--out", f"{folder}/run"]
        begun, used = time.perf_counter(), _used()
        subprocess.run(line, check=True, env=environment, cwd=folder, stdout=subprocess.DEVNULL)
        return time.perf_counter() - begun, _used() - used


def _used() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def main(options: Options) -> None:
    """Measure and show."""
    ways = {
        "this": (Path(__file__).parents[1], tuple(shlex.split(options.words))),
        "other": (options.against, ()),
    }
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(options.repeats):
        for name, way in ways.items():
            found[name].append(run(*way))
        medians = {
            name: [statistics.median(t) for t in zip(*times, strict=True)] for name, times in found.items()
        }
        rows = [
            {
                "checkout": name,
                "wall s": wall,
                "CPU s": cpu,
                "ratio, wall": medians["other"][0] / wall,
                "ratio, CPU": medians["other"][1] / cpu,
                "runs": len(found[name]),
            }
            for name, (wall, cpu) in medians.items()
        ]
        show(f"dpbench.run {shlex.join(MAIN)}", rows, options.out / "main_command.csv")


if __name__ == "__main__":
    main(tyro.cli(Options))

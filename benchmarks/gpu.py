"""All measurements that need a graphics card, most valuable first, within the minutes given; no network.

    python -m benchmarks.gpu --minutes 9 --assets DIR --out DIR

Each step is a separate process that writes its table along the way. It is ended, with everything it started,
when its time is up. `gpu.csv` says how each step ended. A step that has already succeeded in that folder is
not run again. Without a graphics card the same steps run with sizes for the CPU. See docs/gpu.md.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
import tyro

from benchmarks.cases import CASES, Case
from benchmarks.measure import show
from dpbench.report.export import export
from dpbench.store import Store

SUITES = ("gradinversion-table", "bn-knowledge", "confidence", "labels")
"""What comes last; the ablation and the batch sizes are worth more."""

EXPORT = 15.0
"""Seconds kept for the tables and pictures of a sweep that is out of time."""


@dataclass(frozen=True)
class Step:
    """One command.

    Attributes:
        name: also of its folder of results.
        words: for the Python interpreter; `--out` follows.
        least: seconds below which it is not begun.
        most: seconds after which it is ended.
        needs: a module without which it cannot run.
    """

    name: str
    words: tuple[str, ...]
    least: float
    most: float
    needs: str = "torch"


def steps(device: str, images: str = "imagenet-samples") -> list[Step]:
    """What there is to do, most valuable first; `images` is the `--data` of the sweeps at 224 px."""
    first, *others = sorted(CASES[device], key=lambda c: (c.batch not in (1, 8), -c.size, c.batch))
    found = [_paper(device, images), _sweep("gradinversion-ablation", device, images)]
    found += [*_of(first, device), _sweep("batch-size", device, images), _workers(device)]
    found += [step for case in others for step in _of(case, device)]
    return found + [_sweep(name, device, images) for name in SUITES]


def _of(case: Case, device: str) -> list[Step]:
    word = f"{case.model}:{case.size}:{case.batch}"
    shared = ("--case", word, "--device", device)
    table = (
        ("versus_breaching", 60, 240, "breaching"),
        ("roofline", 30, 180, "torch"),
        ("engine", 60, 240, "torch"),
        ("defence", 10, 60, "torch"),
    )
    return [
        Step(f"{name}-{word.replace(':', '-')}", ("-m", f"benchmarks.{name}", *shared), least, most, needs)
        for name, least, most, needs in table
    ]


def _workers(device: str) -> Step:
    """Cells side by side on one card: cells a minute with 1, 2 and 4 workers."""
    return Step("executors", ("-m", "benchmarks.executors", "0", "1", "--device", device), 60, 300)


def _imagenet(images: str, size: int) -> tuple[str, ...]:
    victim = ("--model", "resnet50", "--weights", "resnet50-imagenet", "--victim", "trained")
    return (*victim, "--data", images, "--image-size", str(size))


def _paper(device: str, images: str) -> Step:
    """GradInversion at the paper's setting; on the CPU one image of 64 pixels, without a group.

    The attack comes before its floors. Six thousand iterations of four seeds are five minutes on an H100 by a
    prototype's 12 ms each, and compiling two; a victim less sure of itself is what every image leaks from.
    """
    size, batch, searched = {
        "cuda": (224, 8, ("--iterations", "6000", "--engine", "compiled")),
        "cpu": (64, 1, ("--iterations", "300", "--terms", "fidelity", "--restarts", "1")),
    }[device]
    asked = ("--attack", "gradinversion", "--defense", "none", "--bn-stats", "exact", "--logit-scale", "0.25")
    asked += ("--batch-size", str(batch), *searched, "--device", device, *_imagenet(images, size))
    return Step("gradinversion-paper", ("-m", "dpbench.run", *asked), 400 if device == "cuda" else 60, 3600)


def _sweep(name: str, device: str, images: str) -> Step:
    """A suite, with ResNet-50 at 224 px where there is a graphics card."""
    large = _imagenet(images, 224) if device == "cuda" else ()
    return Step(name, ("-m", "dpbench.run", "--suite", name, "--device", device, *large), 60, 3600)


@dataclass(frozen=True)
class Options:
    """What to do with a graphics card.

    Attributes:
        minutes: after which everything has ended.
        assets: folder made by `python -m dpbench.assets export`.
        out: where the results go.
        images: `--data` of the sweeps at 224 px: a gallery wants 64 images or more (folder:PATH).
    """

    minutes: float = 9.0
    assets: Path | None = None
    out: Path = Path("results/gpu")
    images: str = "imagenet-samples"


def run(step: Step, options: Options, limit: float) -> str:
    """Runs one step; how it ended."""
    if importlib.util.find_spec(step.needs) is None:
        return f"skipped: no module {step.needs}"
    folder, file = options.out / step.name, options.out / f"{step.name}.log"
    folder.mkdir(parents=True, exist_ok=True)  # for results alone: a sweep takes no folder with other files
    environment = dict(os.environ)
    if options.assets is not None:
        environment["DPBENCH_ASSETS"] = str(options.assets.resolve())
    command = [sys.executable, *step.words, "--out", str(folder)]
    with file.open("w") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, env=environment, start_new_session=True
        )
        try:
            status = process.wait(limit)
        except subprocess.TimeoutExpired:
            status = None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    if status is None:
        if (folder / "cells").is_dir():  # a sweep makes its tables when it ends, and this one will not
            export(Store(folder))
        return "out of time"
    return "ok" if status == 0 else f"failed: exit status {status}, see {file}"


def main(options: Options) -> int:
    """All steps that fit; 1 where one failed."""
    end = time.monotonic() + 60 * options.minutes
    file, rows = options.out / "gpu.csv", []
    if file.exists():
        rows = [row for row in pd.read_csv(file).to_dict("records") if row["status"] == "ok"]
    finished = {row["step"] for row in rows}
    for step in steps("cuda" if torch.cuda.is_available() else "cpu", options.images):
        if step.name in finished:
            continue
        begun = time.monotonic()
        fits = end - begun >= step.least
        status = run(step, options, min(step.most, end - begun - EXPORT)) if fits else "not begun"
        rows.append({"step": step.name, "status": status, "seconds": time.monotonic() - begun})
        show("Steps", rows, file)
    return int(any(row["status"].startswith("failed") for row in rows))


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Options)))

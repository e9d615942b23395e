"""All measurements that need a graphics card, most valuable first, within the minutes given; no network.

    python -m benchmarks.gpu --minutes 9 --assets DIR --out DIR

Each step is a separate process that writes its table along the way. It is ended, with everything it started,
when its time is up. If the first one, `parity`, finds a backend wrong, the others are not begun. `gpu.csv`
says how each step ended. A step that has already succeeded in that folder is not run again. Without a
graphics card the same steps run with sizes for the CPU. See docs/gpu.md.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import torch
import tyro

from benchmarks.cases import CASES, Case
from benchmarks.measure import show
from dpbench.cell import registered
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
        environment: variables that it alone sees.
    """

    name: str
    words: tuple[str, ...]
    least: float
    most: float
    needs: str = "torch"
    environment: Mapping[str, str] = field(default_factory=dict)


def steps(device: str, images: str = "imagenet-samples") -> list[Step]:
    """What there is to do, most valuable first; `images` is the `--data` of the sweeps at 224 px."""
    cases = sorted(CASES[device], key=lambda c: (c.batch == 48, -c.size, c.batch))
    most = {"cuda": 150, "cpu": 400}[device]
    parity = Step("parity", ("-m", "benchmarks.parity", "--device", device), 60, most)
    found = [parity, _paper(device, images)]
    found += [_of(case, device, name) for case in cases for name in ("versus_breaching", "engine")]
    found += [_variants(device)]
    found += [_sweep("gradinversion-ablation", device, images), _sweep("batch-size", device, images)]
    found += [_workers(device), *_roundings(device, images)]
    last = ("kernel_times", "roofline", "defence") if device == "cuda" else ("roofline", "defence")
    found += [_of(case, device, name) for case in cases for name in last]
    return found + [_sweep(name, device, images) for name in SUITES]


def _of(case: Case, device: str, name: str) -> Step:
    """A benchmark of one case, with as many iterations as the case's size leaves time for.

    On an H200, compiling ResNet-50 took 102 to 127 s, and an iteration without a graph 80 ms with 8 images
    and 114 ms with 48; breaching's took 93 and 163 ms.
    """
    word = f"{case.model}:{case.size}:{case.batch}"
    words = ("-m", f"benchmarks.{name}", "--case", word, "--device", device)
    if name != "defence" and case.size >= 224:
        words += ("--iterations", "20" if case.batch >= 48 else "50")
    long = case.size >= 224 and name != "defence"
    least, most = (150, 420) if long else (30, 200)
    needs = "breaching" if name == "versus_breaching" else "torch"
    return Step(f"{name}-{word.replace(':', '-')}", words, least, most, needs)


def _variants(device: str) -> Step:
    """What would make ResNet-50 with eight images faster; on the CPU a small network."""
    case, most = {"cuda": ("resnet50:224:8", 500), "cpu": ("convnet:32:1", 400)}[device]
    words = ("-m", "benchmarks.variants", "--case", case, "--device", device, "--iterations", "50")
    return Step("variants", (*words, "--wait", str(0.75 * most)), 150, most)


def _workers(device: str) -> Step:
    """Cells side by side on one card: cells a minute with 1, 2 and 4 workers."""
    return Step("executors", ("-m", "benchmarks.executors", "0", "1", "--device", device), 60, 300)


def _imagenet(images: str, size: int) -> tuple[str, ...]:
    victim = ("--model", "resnet50", "--weights", "resnet50-imagenet", "--victim", "trained")
    return (*victim, "--data", images, "--image-size", str(size))


def _paper(device: str, images: str) -> Step:
    """GradInversion at the paper's setting; on the CPU one image of 64 pixels, without a group.

    The attack comes before its floors. On an H200, an iteration of one of four seeds took 10.4 ms, so 2,500
    of them are under two minutes, compiling is another two, and the noise-fed floor, which is the same search
    on the same program, again two. A victim less sure of itself is what every image leaks from.
    """
    size, batch, searched = {
        "cuda": (224, 8, ("--iterations", "2500", "--engine", "compiled")),
        "cpu": (64, 1, ("--iterations", "300", "--terms", "fidelity", "--restarts", "1")),
    }[device]
    asked = ("--attack", "gradinversion", "--defense", "none", "--bn-stats", "exact", "--logit-scale", "0.25")
    asked += ("--batch-size", str(batch), *searched, "--device", device, *_imagenet(images, size))
    return Step("gradinversion-paper", ("-m", "dpbench.run", *asked), 300 if device == "cuda" else 60, 3600)


def _roundings(device: str, images: str) -> list[Step]:
    """One cell with TF32 and one in full precision: whether TF32 costs the search quality."""
    asked = ("--attack", "inverting-gradients", "--defense", "none", "--batch-size", "1")
    asked += ("--iterations", "500", "--engine", "eager", "--device", device)
    words = ("-m", "dpbench.run", *asked, *_imagenet(images, 224 if device == "cuda" else 64))
    full = {"NVIDIA_TF32_OVERRIDE": "0"}  # read by cuBLAS and cuDNN themselves
    return [Step("rounding-tf32", words, 60, 200), Step("rounding-full", words, 60, 200, environment=full)]


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
    environment = os.environ | step.environment
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
            tables(folder)
        return "out of time"
    return "ok" if status == 0 else f"failed: exit status {status}, see {file}"


def tables(folder: Path) -> None:
    """Tables and pictures of a sweep that was ended."""
    registered.load()  # a table has the columns of all parts
    export(Store(folder))


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
        left = end - begun - EXPORT
        status = run(step, options, min(step.most, left)) if left >= step.least else "not begun"
        rows.append({"step": step.name, "status": status, "seconds": time.monotonic() - begun})
        show("Steps", rows, file)
        if step.name == "parity" and status.startswith("failed"):
            print(f"A backend is wrong, so nothing else is measured: see {options.out / 'parity.log'}.")
            break
    return int(any(row["status"].startswith("failed") for row in rows))


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Options)))

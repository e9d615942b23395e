"""Time and memory to show the status of a run of 100,000 cells, to resume it and to export it.

    python -m benchmarks.store            # 100,000 cells, 400,000 rows, in a temporary folder
    python -m benchmarks.store 1000       # fewer

Each figure is measured in a separate process, so that its peak memory is its own.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from dpbench.cell import registered
from dpbench.report.export import export_data
from dpbench.store import Store, attach_floors, open_run
from dpbench.sweep import status
from dpbench.system import digest

CELLS = 100_000
BATCH = 4
SIDE = 8
ATTACKS = ("dlg", "idlg", "inverting-gradients")
DEFENCES = ("none", "clip", "dp", "prune", "noise")


def make(folder: Path, count: int) -> None:
    """A finished run of `count` cells with `BATCH` images each; one in a hundred failed."""
    os.fsync = lambda _: None  # what is measured is reading
    generator = np.random.default_rng(0)
    pictures = generator.random((BATCH, 3, SIDE, SIDE), dtype=np.float32)
    store, keys = open_run(folder, {"synthetic": count}), []
    for i in range(count):
        keys.append(digest.described({"cell": i}))
        rows = [row(i, image, generator) for image in range(BATCH)]
        store.write(keys[-1], rows, pictures, pictures)
    store.expect((key, f"synthetic cell {i}") for i, key in enumerate(keys))


def row(i: int, image: int, generator: np.random.Generator) -> dict[str, object]:
    """A row with as many columns filled as a real one of `dp` has."""
    defense, attack = DEFENCES[i % 5], ATTACKS[i // 5 % 3]
    floor = i % 20 == 0
    private = {} if defense != "dp" else {"eps": 1.0, "eps_release": 99.5, "delta": 1e-5, "steps": 125_000}
    private |= {"accountant": "pld", "eps_scope": "training", "adjacency": "add-remove"} if private else {}
    failed = i % 100 == 99
    return {
        "attack": "floor:noise-gradient" if floor else attack,
        "floor": "noise-gradient" if floor else None,
        "floor_of": attack if floor else None,
        "adaptive": defense != "none",
        "defense": "none" if floor else defense,
        **private,
        "max_grad_norm": 1.0 if defense in ("dp", "clip") else None,
        "threat_model": "honest",
        "releases": 1,
        "model": "convnet",
        "norm": "none",
        "mode": "eval",
        "victim": "early",
        "victim_accuracy": 0.5,
        "bn_stats": "none",
        "labels": "known",
        "label_draw": "distinct",
        "data": "samples",
        "batch_size": BATCH,
        "batch_seed": i // 15 % 1000,
        "attack_seed": i // 15_000,
        "image": image,
        "original_index": image,
        "label": image,
        **dict.fromkeys(("image_loss", "image_grad_share", "ssim", "lpips", "fft2d"), generator.random()),
        "psnr": 30 * generator.random(),
        "lpips_net": "alex",
        "label_correct": True,
        "gradient_distance": generator.random(),
        "engine": "eager",
        "iterations": 1500,
        "seconds": generator.random(),
        "compile_seconds": 0.0,
        "device": "cpu",
        "version": "0.1.0",
        "status": "failed" if failed else "ok",
        "error": "ValueError: synthetic" if failed else None,
    }


def look(folder: Path) -> str:
    """`--status`."""
    return str(status.describe(folder)).splitlines()[0]


def take_up(folder: Path) -> str:
    """What a resumed run does first: find what is done."""
    return f"{len(Store(folder).done())} done"


def export(folder: Path) -> str:
    """One table of everything, floors attached, and the summary."""
    store = Store(folder)
    table = attach_floors(store.frame())
    files = export_data(store, table)
    return f"{len(table)} rows, " + ", ".join(
        f"{file.name} {file.stat().st_size >> 20} MiB" for file in files
    )


def measure(work: Callable[[Path], str], folder: Path) -> None:
    """Runs `work` in a fresh process; prints seconds, peak memory and what it says."""

    def timed() -> None:
        begun = time.perf_counter()
        said = work(folder)
        seconds = time.perf_counter() - begun
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(f"{work.__name__:8s} {seconds:7.2f} s  {peak:5.2f} GiB  {said}", flush=True)

    process = multiprocessing.get_context("fork").Process(target=timed)
    process.start()
    process.join()


def main() -> None:
    """Make a run, then measure."""
    registered.load()  # the columns of all parts
    count = int(sys.argv[1]) if len(sys.argv) > 1 else CELLS
    with tempfile.TemporaryDirectory() as folder:
        path = Path(sys.argv[2]) if len(sys.argv) > 2 else Path(folder) / "run"
        if not path.exists():
            begun = time.perf_counter()
            make(path, count)
            print(f"{count} cells made in {time.perf_counter() - begun:.0f} s", flush=True)
        for work in (look, take_up, export):
            measure(work, path)


if __name__ == "__main__":
    main()

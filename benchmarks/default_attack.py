"""The default attack's two presets on the same batches, starts and labels: what `tuned` gains.

    python -m benchmarks.default_attack
    python -m benchmarks.default_attack --victim trained --batch-size 4 --images 20

Undefended releases of CIFAR-10's test images, batch seeds from 1000 on; nothing was tuned on them. The
presets take turns, batch by batch. Intervals are 95 % by bootstrap over the batches (10,000 draws).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import tyro

from benchmarks.measure import kept, show
from dpbench.cell.run import run_cell
from dpbench.cell.spec import BatchSpec, Cell, Part, Runtime
from dpbench.data import load_data
from dpbench.system.process import clean_state

COLUMNS = ("victim", "batch_size", "preset", "batch_seed", "image", "psnr", "lpips", "seconds")
DRAWS = 10_000
EQUAL_TIME = {False: 670, True: 900}  # iterations for one image, and for several; what took as long


@dataclass(frozen=True)
class Options:
    """What is compared.

    Attributes:
        victim: the shipped ConvNets.
        batch_size: images in a release.
        images: about how many in all, for each victim and batch size.
        first_seed: of the batches.
        iterations: of `tuned`. If None, as many as take the time of the 1,500 of `paper`.
        engine: of the searches.
        out: folder of the tables.
    """

    victim: tuple[str, ...] = ("early", "trained")
    batch_size: tuple[int, ...] = (1, 4)
    images: int = 50
    first_seed: int = 1000
    iterations: int | None = None
    engine: str = "compiled"
    out: Path = Path("results/benchmarks/default-attack")


def cell(options: Options, victim: str, batch_size: int, seed: int, preset: str) -> Cell:
    """One search."""
    iterations = options.iterations or EQUAL_TIME[batch_size > 1]
    given = {"paper": (), "tuned": (("iterations", iterations),)}[preset]
    return Cell(
        batch=BatchSpec(
            data="cifar10",
            images_digest="",
            batch_size=batch_size,
            batch_seed=seed,
            label_draw="distinct",
            model="convnet",
            norm="none",
            victim=victim,
            weights_digest="",
        ),
        attack=Part(name="inverting-gradients", parameters=(*given, ("preset", preset))),
        runtime=Runtime(device="cpu", engine=options.engine, lpips_net="alex", version=""),
    )


def measured(options: Options) -> Iterator[dict]:
    """A row for each image."""
    for victim, size in itertools.product(options.victim, options.batch_size):
        for seed in range(options.first_seed, options.first_seed + -(-options.images // size)):
            for preset in ("paper", "tuned"):
                found = run_cell(cell(options, victim, size, seed, preset)).rows
                if found[0]["status"] != "ok":
                    raise RuntimeError(found[0]["error"])
                for row in found:
                    if row["attack"] == "inverting-gradients":
                        yield {name: row.get(name) for name in COLUMNS} | {"preset": preset}


def compared(table: pd.DataFrame) -> list[dict]:
    """A row for each victim and batch size."""
    found = []
    for (victim, size), part in table.groupby(["victim", "batch_size"]):
        paper, tuned = (
            part[part["preset"] == name].set_index(["batch_seed", "image"]) for name in ("paper", "tuned")
        )
        gain, less = tuned["psnr"] - paper["psnr"], tuned["lpips"] / paper["lpips"]
        low, high = interval(gain.groupby("batch_seed").mean().to_numpy())
        found.append(
            {
                "victim": victim,
                "B": size,
                "images": len(gain),
                "PSNR paper": paper["psnr"].mean(),
                "tuned": tuned["psnr"].mean(),
                "gain": gain.mean(),
                "low": low,
                "high": high,
                "median gain": gain.median(),
                "better": int((gain > 0).sum()),
                "LPIPS paper": paper["lpips"].mean(),
                "LPIPS tuned": tuned["lpips"].mean(),
                "median paper": paper["lpips"].median(),
                "median tuned": tuned["lpips"].median(),
                "median ratio": less.median(),
                "s paper": paper["seconds"].mean(),
                "s tuned": tuned["seconds"].mean(),
            }
        )
    return found


def interval(values: np.ndarray) -> tuple[float, float]:
    """95 % by bootstrap for the mean of independent values."""
    drawn = np.random.default_rng(0).choice(values, (DRAWS, len(values))).mean(1)
    return tuple(np.quantile(drawn, [0.025, 0.975]).tolist())


def main(options: Options) -> None:
    """Measure and show; images.csv has a row as soon as it is measured."""
    load_data("cifar10")  # here, so that a missing one is said at once
    options.out.mkdir(parents=True, exist_ok=True)
    with clean_state():
        rows = kept(measured(options), COLUMNS, options.out / "images.csv")
    show("The presets of inverting-gradients", compared(pd.DataFrame(rows)), options.out / "table.csv")


if __name__ == "__main__":
    main(tyro.cli(Options))

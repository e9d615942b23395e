"""What `map` gains when its prior is centred on the linear estimate, denoised or not: `dp`, one image.

    python -m benchmarks.denoiser_prior
    python -m benchmarks.denoiser_prior --attack posterior-mean --images 10

All attacks get the same releases of CIFAR-10's test images, batch seeds from 1000 on; nothing was tuned on
them. Intervals are 95 % by bootstrap over the batches (10,000 draws).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import tyro

from benchmarks.default_attack import interval
from benchmarks.measure import kept, show
from dpbench.cell.run import run_cell
from dpbench.cell.scene import prepare
from dpbench.cell.spec import BatchSpec, Cell, Part, Runtime
from dpbench.system.process import clean_state

COLUMNS = ("attack", "eps_release", "batch_seed", "psnr", "lpips", "identified", "seconds")


@dataclass(frozen=True)
class Options:
    """What is compared.

    Attributes:
        attack: attacks, `map` with the centre after a colon.
        eps: of the release, one for each level.
        images: how many, one in a batch.
        first_seed: of the batches.
        out: folder of the tables.
    """

    attack: tuple[str, ...] = ("lmmse", "map:mean", "map:estimate", "map:denoised")
    eps: tuple[float, ...] = (32, 100, 350, 1000)
    images: int = 20
    first_seed: int = 1000
    out: Path = Path("results/benchmarks/denoiser-prior")


def cell(attack: str, eps: float, seed: int) -> Cell:
    """One attack on one release."""
    name, _, centre = attack.partition(":")
    batch = BatchSpec(
        data="cifar10",
        images_digest="",
        batch_size=1,
        batch_seed=seed,
        label_draw="distinct",
        model="convnet",
        norm="none",
        victim="early",
        weights_digest="",
    )
    return Cell(
        batch=batch,
        defence=Part(name="dp", parameters=(("eps", float(eps)), ("eps_scope", "release"))),
        attack=Part(name=name, parameters=(("centre", centre),) if centre else ()),
        runtime=Runtime(device="cpu", lpips_net="alex", version=""),
    )


def measured(options: Options) -> Iterator[dict]:
    """A row for each attack and release."""
    seeds = range(options.first_seed, options.first_seed + options.images)
    # label by label: what an attack learns of one is kept for the next image
    for seed in sorted(seeds, key=lambda seed: int(prepare(cell("lmmse", 1, seed).batch).labels)):
        for eps in options.eps:
            for attack in options.attack:
                found = run_cell(cell(attack, eps, seed)).rows
                if found[0]["status"] != "ok":
                    raise RuntimeError(found[0]["error"])
                yield {name: found[0].get(name) for name in COLUMNS} | {"attack": attack, "eps_release": eps}


def compared(table: pd.DataFrame) -> list[dict]:
    """A row for each level and attack: means, and the gain over the first attack."""
    found = []
    for eps, rows in table.groupby("eps_release"):
        by = {name: part.set_index("batch_seed").sort_index() for name, part in rows.groupby("attack")}
        first = by[rows["attack"].iloc[0]]
        for name, part in by.items():
            gain = (part["psnr"] - first["psnr"]).dropna()
            low, high = interval(gain.to_numpy())
            found.append(
                {
                    "eps": eps,
                    "attack": name,
                    "images": len(part),
                    "PSNR": part["psnr"].mean(),
                    "gain": gain.mean(),
                    "low": low,
                    "high": high,
                    "worst": gain.min(),
                    "LPIPS": part["lpips"].mean(),
                    "identified": int(part["identified"].fillna(False).astype(bool).sum()),
                    "s": part["seconds"].mean(),
                }
            )
    return found


def main(options: Options) -> None:
    """Measure and show; images.csv has a row as soon as it is measured."""
    options.out.mkdir(parents=True, exist_ok=True)
    with clean_state():
        rows = kept(measured(options), COLUMNS, options.out / "images.csv")
    show("Centres of map's prior", compared(pd.DataFrame(rows)), options.out / "table.csv")


if __name__ == "__main__":
    main(tyro.cli(Options))

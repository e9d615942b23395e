"""How near dpbench's attacks come, and how near breaching's, on the same releases with as many iterations.

    pip install -e '.[bench]'
    python -m benchmarks.quality
    python -m benchmarks.quality --victim resnet20:early --batch-size 1 --defense none --iterations 400
    python -m benchmarks.quality --attack dlg idlg --peer deepleakage --victim lenet:untrained

CIFAR-10's test images, labels known (`dlg` and `deepleakage` search them), batch seeds from 1000 on; nothing
of dpbench was tuned on them. Every attack has the parameters that its own package gives it, but for the
number of iterations and of starts. All attack one batch before the next one's turn. Reconstructions of both
packages are matched to the images and measured by `dpbench.metrics`. `gain` is the PSNR of the first attack
less that of the row's, image by image; its interval is 95 % by bootstrap over the batches, and `better`
counts the images that the first attack brings nearer.
"""

from __future__ import annotations

import itertools
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter

import pandas as pd
import torch
import tyro
from torch import Tensor

import attacks
import defenses
from benchmarks import peer
from benchmarks.default_attack import interval
from benchmarks.measure import kept, show
from dpbench import metrics
from dpbench.cell import parts, registered
from dpbench.cell import release as releasing
from dpbench.cell.scene import Scene, prepare, with_statistics
from dpbench.cell.spec import BatchSpec, Cell, Part, Runtime
from dpbench.data import load_data
from dpbench.protocol import InputError, Release
from dpbench.system.process import clean_state, configure
from dpbench.victim import usual_norm, weights_digest

SETTING = ("victim", "batch_size", "defense")
COLUMNS = (*SETTING, "batch_seed", "image", "attack", "psnr", "lpips", "seconds")
SIZE = 32
"""Pixels a side of the images."""
STRENGTH = {"clip": "max_grad_norm", "noise": "noise_std", "prune": "prune_ratio", "dp": "eps"}
"""What the number behind a defence's name is."""


@dataclass(frozen=True)
class Options:
    """What is compared.

    Attributes:
        victim: NETWORK:TRAINING, of the shipped ones or `untrained`.
        batch_size: images in a release.
        defense: names, with a number behind a colon: `prune:0.9`; `dp:100` is an epsilon of the release.
        attack: dpbench's, with the preset behind a colon; the first is compared with all others.
        peer: breaching's configurations.
        images: about how many in all, for each setting.
        first_seed: of the batches.
        iterations: of every search.
        data: `cifar10`, or `samples`, which need no download.
        engine: of dpbench's searches.
        out: folder of the tables.
    """

    victim: tuple[str, ...] = ("convnet:early",)
    batch_size: tuple[int, ...] = (1, 4)
    defense: tuple[str, ...] = ("none", "clip", "prune:0.9", "prune:0.99", "dp:100")
    attack: tuple[str, ...] = ("inverting-gradients", "inverting-gradients:paper")
    peer: tuple[str, ...] = ("invertinggradients", "modern")
    images: int = 8
    first_seed: int = 1000
    iterations: int = 600
    data: str = "cifar10"
    engine: str = "auto"
    out: Path = Path("results/benchmarks/quality")


def defence(word: str) -> Part:
    """The defence that `word` names.

    Raises:
        InputError: for a number that is none, or that this defence does not take here.
    """
    name, _, number = word.partition(":")
    if not number:
        return Part(name=name)
    try:
        given = ((STRENGTH[name], float(number)),)
    except (KeyError, ValueError):
        known = ", ".join(f"{name}:{what.upper()}" for name, what in STRENGTH.items())
        raise InputError(f"Unknown defence {word!r}; with a number there are {known}.") from None
    return Part(name=name, parameters=(*given, ("eps_scope", "release")) if name == "dp" else given)


def cell(options: Options, victim: str, batch_size: int, defended: str, seed: int, attack: str) -> Cell:
    """One search of dpbench's."""
    network, _, training = victim.partition(":")
    name, _, preset = attack.partition(":")
    given = {"iterations": options.iterations} | ({"preset": preset} if preset else {})
    if "restarts" in attacks.kind(name).__dataclass_fields__:
        given["restarts"] = 1  # breaching has as many
    return Cell(
        batch=BatchSpec(
            data=options.data,
            images_digest="",
            batch_size=batch_size,
            batch_seed=seed,
            label_draw="distinct",
            model=network,
            norm=usual_norm(network),
            victim=training or "trained",
            weights_digest="",
        ),
        defence=defence(defended),
        attack=Part(name=name, parameters=tuple(sorted(given.items()))),
        runtime=Runtime(device="cpu", engine=options.engine, version=""),
    )


def ours(searched: Cell, scene: Scene, release: Release) -> Tensor:
    """Images [B, 3, H, W] in [0, 1] that dpbench makes of a release."""
    return releasing.attacked(searched, scene, release).images


def theirs(config: str, iterations: int, seed: int, scene: Scene, release: Release) -> Tensor:
    """Images [B, 3, H, W] in [0, 1] that breaching makes of a release."""
    network = defenses.in_release_mode(scene.victim.model)
    shape = scene.images.shape[1:]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        found = peer.breaching(
            config, network, release.gradients, scene.labels, shape, scene.mean, scene.std, iterations
        )
    mean, std = (torch.tensor(values)[:, None, None] for values in (scene.mean, scene.std))
    return (found * std + mean).clamp(0, 1)


def measured(options: Options) -> Iterator[dict]:
    """A row for each image and attack."""
    for victim, size, defended in itertools.product(options.victim, options.batch_size, options.defense):
        for seed in range(options.first_seed, options.first_seed + -(-options.images // size)):
            cells = {name: cell(options, victim, size, defended, seed, name) for name in options.attack}
            first = cells[options.attack[0]]
            scene = with_statistics(prepare(first.batch))
            release = releasing.released(first, scene)
            begin = first.search_seed()
            ways = {name: partial(ours, searched) for name, searched in cells.items()}
            ways |= {f"breaching:{c}": partial(theirs, c, options.iterations, begin) for c in options.peer}
            about = dict(zip(SETTING, (victim, size, defended), strict=True)) | {"batch_seed": seed}
            for name, way in ways.items():
                begun = perf_counter()
                found = way(scene, release)
                seconds = perf_counter() - begun
                yield from scored(about | {"attack": name, "seconds": seconds}, found, scene)


def scored(about: dict, found: Tensor, scene: Scene) -> Iterator[dict]:
    """A row for each image: the columns of `about`, and how near the images `found` come to it."""
    found = found[metrics.match(found, scene.images)]
    psnr, lpips = (measure(found, scene.images).tolist() for measure in (metrics.psnr, metrics.lpips))
    for place, *values in zip(scene.indices, psnr, lpips, strict=True):
        yield about | dict(zip(("image", "psnr", "lpips"), (place, *values), strict=True))


def compared(table: pd.DataFrame) -> list[dict]:
    """A row for each setting and attack; the first attack of the table is compared with the others."""
    found, first = [], table["attack"].iloc[0]
    for setting, part in table.groupby(list(SETTING), sort=False):
        images = part.set_index(["batch_seed", "image"])
        own = images.loc[images["attack"] == first, "psnr"]
        for name, rows in images.groupby("attack", sort=False):
            gain = own - rows["psnr"]
            low, high = interval(gain.groupby("batch_seed").mean().to_numpy())
            row = dict(zip(SETTING, setting, strict=True)) | {"attack": name, "images": len(rows)}
            row |= {"PSNR": rows["psnr"].mean(), "LPIPS": rows["lpips"].mean(), "gain": gain.mean()}
            row |= {"low": low, "high": high, "better": int((gain > 0).sum())}
            found.append(row | {"s": rows["seconds"].mean()})
    return found


def check(options: Options) -> None:
    """InputError for what cannot be run, before hours of what can."""
    if not options.attack:
        raise InputError(
            "`attack` has none of dpbench's attacks to compare: leave it out for the default ones."
        )
    if options.peer and find_spec("breaching") is None:
        raise InputError(
            "breaching is missing: pip install -e '.[bench]', or leave out its attacks with --peer."
        )
    for victim, size, defended in itertools.product(options.victim, options.batch_size, options.defense):
        for name in options.attack:
            planned = cell(options, victim, size, defended, options.first_seed, name)
            parts.attack_of(planned)
            parts.defence_of(planned)
        of = planned.batch
        weights_digest(of.model, of.norm, of.victim, None, load_data(of.data), SIZE)
        prepare(of)


def main(options: Options) -> int:
    """Measures and shows; images.csv has a row as soon as it is measured. Exit status 2 for bad input."""
    warnings.filterwarnings("ignore", module="hydra|omegaconf|breaching")
    configure()
    if options.peer:
        peer.without_torchscript()
    registered.load()
    try:
        check(options)
        options.out.mkdir(parents=True, exist_ok=True)
        with clean_state():
            rows = kept(measured(options), COLUMNS, options.out / "images.csv")
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    show("dpbench and breaching", compared(pd.DataFrame(rows)), options.out / "table.csv")
    return 0


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Options)))

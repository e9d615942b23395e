"""From what was asked for to the settings that are tuned, each with its batches."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import attacks
from dpbench import __version__, metrics
from dpbench.cell.scene import dataset
from dpbench.cell.spec import Cell, Runtime
from dpbench.data import disjoint_batches
from dpbench.frontier.cells import resolved
from dpbench.protocol import InputError, parameters
from dpbench.sweep import engines
from dpbench.sweep.inputs import Inputs
from dpbench.sweep.options import Options
from dpbench.sweep.plan import plan
from dpbench.tune.options import SEEDS
from dpbench.tune.space import Space


@dataclass(frozen=True)
class Setting:
    """One defence with its parameters, one batch size and one victim.

    Attributes:
        tuned: a cell for each batch that values are chosen on, with the attack as it is unless tuned.
        checked: likewise, for each batch that they are checked on.
    """

    tuned: tuple[Cell, ...]
    checked: tuple[Cell, ...]


class Settings:
    """Every setting; those without a defence come along, and first.

    Args:
        options: of a sweep, checked.
        seeds: of the batches that values are chosen on.
        checks: of those that they are checked on; as many further ones unless given.
        space: what is searched.
        trials: in each setting.
        metric: that is to be best.

    Attributes:
        all: the settings, undefended ones first.
        left_out: one sentence for each combination that cannot be run.
        seeds: of the batches that values are chosen on.
        checks: of the batches that they are checked on.

    Raises:
        InputError: for what cannot be tuned; the sentence says why.
    """

    def __init__(
        self,
        options: Options,
        seeds: tuple[int, ...],
        checks: tuple[int, ...],
        space: Space,
        trials: int,
        metric: str,
    ) -> None:
        self._options = options
        self.seeds, self.checks = seeds, checks or tuple(max(seeds) + 1 + i for i in range(len(seeds)))
        self._check(space)
        data = dataset(options.data, options.image_size)
        reason = metrics.why_no_lpips(*data.images.shape[2:])
        if metric == "lpips" and reason is not None:
            raise InputError(f"There is no LPIPS, so take psnr as `metric`: {reason}")
        self._runtime = Runtime(
            device=resolved(options.device),
            engine=options.engine,
            lpips_net="alex" if reason is None else None,
            version=__version__,
            plugins=options.plugin,
        )
        values = {name: value for name, value in options.items() if isinstance(value, tuple)}
        values |= {"batch_seed": (*self.seeds, *self.checks)}
        inputs = Inputs(options.data, options.image_size, options.weights)
        planned = plan(values, inputs, self._runtime)
        cells = _with_engines([cell for cell in planned.cells if not cell.floor], trials)
        self.left_out = list(planned.left_out)
        self.all = self._grouped(cells)
        for size in options.batch_size:
            for draw in options.label_draw:
                if (count := disjoint_batches(data, size, draw)) <= SEEDS[1] + 1:
                    self.left_out.append(
                        f"{data.name} has {count} batches of {size} without a common image, so seeds from "
                        f"{SEEDS[1] + 1} on hold images that are tuned on; results say which (tuned_on)"
                    )

    def configuration(self) -> dict[str, Any]:
        """What decides the results, for the folder's `config.toml`."""
        where = {"device": self._runtime.device, "version": self._runtime.version}
        where |= {"batch_seed": list(self.seeds), "check_seed": list(self.checks)}
        return self._options.configuration() | where

    def _grouped(self, cells: Iterable[Cell]) -> list[Setting]:
        found: dict[Cell, list[Cell]] = defaultdict(list)
        for cell in cells:
            anonymous = replace(cell, batch=replace(cell.batch, batch_seed=0, images_digest=""))
            found[anonymous].append(cell)
        return [
            Setting(
                tuple(cell for cell in group if cell.batch.batch_seed in self.seeds),
                tuple(cell for cell in group if cell.batch.batch_seed in self.checks),
            )
            for group in sorted(found.values(), key=lambda group: group[0].defence.name != "none")
        ]

    def _check(self, space: Space) -> None:
        given = self._options
        first, last = SEEDS
        for name, values in (("batch_seed", self.seeds), ("check_seed", self.checks)):
            if wrong := [seed for seed in values if not first <= seed <= last]:
                raise InputError(
                    f"Attacks are tuned on the batch seeds {first} to {last}, as all others are for results: "
                    f"{wrong[0]} cannot be a `{name}`."
                )
        if both := set(self.seeds) & set(self.checks):
            raise InputError(f"Batch {min(both)} is in `batch_seed` and in `check_seed`: give it once.")
        if len(given.attack) > 1:
            raise InputError("One `attack` is tuned at a time: give one.")
        kind = attacks.kind(given.attack[0])
        if not kind.rebuilds_images:
            raise InputError(f"{kind.name} rebuilds no images, so no metric of images can be tuned.")
        for name in (*parameters(kind), "attack_seed"):
            if name in space and given[name]:
                raise InputError(f"`{name}` is among the `parameters` that are chosen: leave it out.")
            if len(given[name]) > 1:
                raise InputError(f"Give one value of `{name}`: it is the same in all trials.")


def _with_engines(cells: list[Cell], trials: int) -> list[Cell]:
    """The engine that pays for all trials, which share their programs."""
    return engines.choose(cells * trials)[: len(cells)]

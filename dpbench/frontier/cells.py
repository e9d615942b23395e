"""From what was asked for to the cells of one batch: every attack, undefended and at every noise level."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from typing import Any

import attacks
from dpbench import __version__
from dpbench.cell import parts
from dpbench.cell.scene import data_for
from dpbench.cell.spec import Cell, Part, Runtime, Told
from dpbench.cell.threats import threat_models
from dpbench.frontier.ranking import FIRST_SEED, Ranking
from dpbench.frontier.sequence import checked_levels
from dpbench.metrics import GALLERY
from dpbench.protocol import ORACLES, Guarantee, InputError, parameters
from dpbench.sweep import engines
from dpbench.sweep.inputs import Inputs
from dpbench.sweep.options import Options
from dpbench.sweep.plan import plan
from dpbench.system import devices
from dpbench.victim import usual_norm
from dpbench.victim.batch_norm import has_batch_norm
from dpbench.victim.networks import build

_PICKED = {"candidates": (GALLERY,), "trials": (1,)}
"""What the informed attacker does: it picks the attacked image once, among its gallery."""
_SEVERAL = "A frontier is of one setting: give one value of each option but `attack` and its parameters."


@dataclass(frozen=True)
class Attacker:
    """One attack of the set, with its hyper-parameters, what it is told and its threat model."""

    threat: Part
    attack: Part
    told: Told

    @property
    def title(self) -> str:
        """The attack's name, and what differs from its defaults."""
        given = ", ".join(f"{name} {value}" for name, value in self.attack.parameters)
        return f"{self.attack.name} ({given})" if given else self.attack.name

    def undefended(self) -> Attacker:
        """The same without what plays a role under a defence only."""
        known = parts.facts(Part(name="none"), self.told.labels, self.attack.name) | self.threat.given
        declared = parameters(attacks.kind(self.attack.name)) | parameters(threat_models[self.threat.name])

        def without(part: Part) -> Part:
            kept = [(name, value) for name, value in part.parameters if parts.applies(declared[name], known)]
            return replace(part, parameters=tuple(kept))

        return replace(self, threat=without(self.threat), attack=without(self.attack))


class Setting:
    """What is measured: one victim and defence, and a set of attacks for each threat model.

    Args:
        options: of a sweep, checked; `defense` is one that takes a noise multiplier.
        levels: noise multipliers.

    Attributes:
        levels: in ascending order.
        ranking: which image of each batch is asked about.
        attackers: by threat model.

    Raises:
        InputError: for what cannot be measured this way; the sentence says why.
    """

    def __init__(self, options: Options, levels: tuple[float, ...]) -> None:
        self.options, self.levels = options, checked_levels(levels)
        self._check()
        self._inputs = Inputs(options.data, options.image_size, options.weights)
        self._runtime = Runtime(
            device=resolved(options.device),
            engine=options.engine,
            # its columns play no part here, and take longer than some attacks
            lpips_net=None,
            version=__version__,
            plugins=options.plugin,
        )
        self.cells = cache(self.cells)
        self.data = data_for(options.model[0], options.data, options.image_size)
        self.ranking = Ranking(self.data, options.batch_size[0], options.label_draw[0])
        self.attackers: dict[str, list[Attacker]] = defaultdict(list)
        for attacker, cell in self.cells(FIRST_SEED)[self.levels[0]].items():
            self._check_attacker(attacker, cell)
            beside = self.attackers[attacker.threat.name]
            if attacker.title in [each.title for each in beside]:  # what it is told or given differs
                raise InputError(_SEVERAL)
            beside.append(attacker)
        for name in self.attackers:  # an impossible budget is to be refused before anything is run
            self.guarantee(name, self.levels[0])

    def cells(self, seed: int) -> dict[float, dict[Attacker, Cell]]:
        """The cells of one batch, by noise multiplier (0: undefended) and attacker.

        Raises:
            InputError: where the options ask for several settings.
        """
        values = {name: value for name, value in self.options.items() if isinstance(value, tuple)}
        values |= {"batch_seed": (seed,), "noise_multiplier": self.levels, "eps": ()} | _PICKED
        planned = [cell for cell in plan(values, self._inputs, self._runtime).cells if not cell.floor]
        found: dict[float, dict[Attacker, Cell]] = defaultdict(dict)
        for cell in engines.choose(planned):
            level = cell.defence.given.get("noise_multiplier", 0.0)
            attacker = Attacker(cell.threat, cell.attack, cell.told)
            if attacker in found[level]:
                raise InputError(_SEVERAL)
            found[level][attacker] = cell
        undefended = found[0.0]
        found[0.0] = {each: undefended[each.undefended()] for each in found[self.levels[0]]}
        return dict(found)

    def guarantee(self, threat_model: str, sigma: float) -> Guarantee | None:
        """What a noise multiplier guarantees of what the attackers of a threat model see."""
        cell = self._cell(threat_model, sigma)
        return parts.guarantee_of(cell, parts.defence_of(cell))

    def sensitivity(self, threat_model: str) -> float:
        """How far a sample moves all releases that they see together, in units of the clip norm."""
        cell = self._cell(threat_model, self.levels[0])
        return parts.defence_of(cell).stages[0].sensitivity(parts.threat_of(cell).releases)

    def _cell(self, threat_model: str, sigma: float) -> Cell:
        """A cell of a threat model, with another noise multiplier."""
        cell = self.cells(FIRST_SEED)[self.levels[0]][self.attackers[threat_model][0]]
        given = tuple(sorted({**cell.defence.given, "noise_multiplier": sigma}.items()))
        return replace(cell, defence=replace(cell.defence, parameters=given))

    def configuration(self) -> dict[str, Any]:
        """What decides the results, for the folder's `config.toml`."""
        where = {"device": self._runtime.device, "version": self._runtime.version}
        return self.options.configuration() | where | {"levels": list(self.levels)}

    def described(self) -> dict[str, Any]:
        """What the result is for: the single values, and the images that are there."""
        of_one = ("data", "model", "victim", "batch_size", "labels", "defense")
        values = {name: self.options[name] for name in of_one}
        return {name: value[0] if isinstance(value, tuple) else value for name, value in values.items()}

    def _check(self) -> None:
        given = self.options
        if len(given.defense) != 1 or not parts.is_calibrated(given.defense[0]):
            raise InputError("A frontier is of one `defense` that takes a noise multiplier, such as dp.")
        if given.eps or given.noise_multiplier:
            raise InputError(
                "A frontier's noise is that of its `levels`: leave out `eps`, `noise_multiplier`."
            )
        for model, norm in product(given.model, given.norm or (None,)):
            if has_batch_norm(build(model, norm=norm or usual_norm(model))) and set(given.bn_stats) & set(
                ORACLES
            ):
                raise InputError(
                    "Exact or recovered `bn_stats` leave the client without noise, which no noise level "
                    "changes: take running ones."
                )

    def _check_attacker(self, attacker: Attacker, cell: Cell) -> None:
        threat, kind = threat_models[attacker.threat.name], attacks.kind(attacker.attack.name)
        if not kind.rebuilds_images or not (threat.rebuilds_images or picks(attacker.threat)):
            raise InputError(
                f"{attacker.title} under `threat_model` {threat.name} rebuilds no images, and a frontier "
                "ranks images: take another `attack` or `threat_model`."
            )
        learns = threat.name in ("malicious-linear", "loki") or parts.wants(cell, "image_statistics")
        statistics = learns and self.data.statistics is None
        images = parts.wants(cell, "public_images") and self.data.public is None
        if statistics or images:
            raise InputError(
                f"{self.data.name} brings no other images of this size, so {attacker.title} would learn from "
                "the decoys: give `data` cifar10 without `image_size`, or an `attack` that needs none, such "
                "as inverting-gradients with `preset` paper."
            )


def picks(threat: Part) -> bool:
    """Whether this attacker picks the attacked image among candidates, and rebuilds none."""
    return threat.name == "informed"


def resolved(asked: str) -> str:
    """`cpu` or `cuda`, where `auto` takes the graphics card if there is one.

    Raises:
        InputError: for a card that is not there.
    """
    return devices.chosen(None if asked == "auto" else asked)

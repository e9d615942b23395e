"""Chooses, before anything runs, which engine each cell's search runs on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

import attacks
from attacks.adaptation import ANSWERED, SCALED, answered
from attacks.engine import auto, checked
from dpbench.cell import parts
from dpbench.cell.spec import Cell, Part
from dpbench.protocol import parameters


def choose(cells: Iterable[Cell]) -> list[Cell]:
    """The cells with `auto` replaced by what pays for all those that share a compiled program.

    It becomes part of each cell, and of its key: engines differ in the last digits, and a search magnifies
    them. Attacks that do not use an engine are left with `eager`.

    Raises:
        InputError: for an engine that the device cannot run, or a hyper-parameter outside its range.
    """
    cells, iterations, programs = list(cells), Counter(), {}
    made: dict[tuple[Part, Part], attacks.Attack] = {}
    for cell in cells:
        checked(cell.runtime.engine, cell.runtime.device)
        if cell.attack and "engine" in attacks.kind(cell.attack.name).__dataclass_fields__:
            attack = made.get((cell.attack, cell.threat)) or parts.attack_of(cell).resolved()
            made[cell.attack, cell.threat] = attack
            programs[cell] = _program(cell, attack)
            iterations[programs[cell]] += attack.evaluations()

    def engine(cell: Cell) -> str:
        if cell not in programs:
            return "eager"
        return auto(cell.runtime.engine, cell.runtime.device, iterations[programs[cell]])

    return [replace(cell, runtime=replace(cell.runtime, engine=engine(cell))) for cell in cells]


def _program(cell: Cell, attack: attacks.Attack) -> tuple[object, ...]:
    """What decides the program: shapes, words, and what an adaptive attack builds in; numbers do not.

    A last stage that is answered brings masks or a transformation along, clipping a scale.
    """
    batch, told, values = cell.batch, cell.told, attack.values()
    # as it will run: what a preset stands for and what is given by name are the same program
    words = [(name, values[name]) for name, each in parameters(type(attack)).items() if each.kind is str]
    stages = cell.defence.name.split("+") if values.get("adaptive", True) else []
    images = batch.batch_size * batch.clients
    victim = (batch.model, batch.norm, batch.data, batch.image_size, batch.weights, images)
    known = tuple(name for name in stages[-1:] if answered(name)), not SCALED.isdisjoint(stages)
    if stages and answered(stages[-1]) and stages[-1] not in ANSWERED:  # its own code runs in the iteration
        known = (*known, *cell.defence.given.items())
    return (*victim, told.bn_stats, told.generator, cell.runtime.device, attack.name, *words, *known)

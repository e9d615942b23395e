"""Settles, before anything runs, which engine each cell's search runs on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

from attacks.engine import auto, checked
from dpbench.cell.grid import Cell
from dpbench.cell.trial import attack_of

_PROGRAM = ("model", "norm", "data", "image_size", "weights", "batch_size", "bn_stats", "device")
_PROGRAM += ("preset", "terms", "generator")


def choose(cells: Iterable[Cell]) -> list[Cell]:
    """The cells with `auto` replaced by what pays for all those that share a compiled program.

    It becomes part of each cell, and of its key: engines differ in the last digits, and a search magnifies
    them. Attacks that do not use an engine are left with `eager`.

    Raises:
        InputError: for an engine that the device cannot run, or a hyper-parameter outside its range.
    """
    cells, iterations, programs = list(cells), Counter(), {}
    for cell in cells:
        checked(cell.engine, cell.device)
        floor = cell.attack.startswith("floor:") and not cell.floor_of
        search = None if floor else attack_of(cell).resolved()
        if hasattr(search, "engine"):
            programs[cell] = _program(cell, getattr(search, "matching", None))
            iterations[programs[cell]] += search.evaluations()

    def engine(cell: Cell) -> str:
        return auto(cell.engine, cell.device, iterations[programs[cell]]) if cell in programs else "eager"

    return [replace(cell, engine=engine(cell)) for cell in cells]


def _program(cell: Cell, matching: str | None) -> tuple[object, ...]:
    """What decides the program: pruning brings masks along, clipping a scale; others change numbers only."""
    stages = cell.defense.split("+") if cell.adaptive else []
    known = stages[-1:] == ["prune"], not {"clip", "dp"}.isdisjoint(stages) and matching == "layer-l2"
    return (*(getattr(cell, name) for name in _PROGRAM), cell.floor_of or cell.attack, matching, known)

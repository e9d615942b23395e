"""The columns of a cell's parameters."""

from __future__ import annotations

import attacks
from dpbench.cell import parts
from dpbench.cell.spec import Cell, Part, Plain
from dpbench.cell.threat_model import threat_models
from dpbench.protocol import parameters


def shown(cell: Cell) -> dict[str, Plain]:
    """The columns of all parameters that play a role in a cell, with the values that hold there."""
    name = cell.attack.name if cell.attack else None
    batch = cell.batch
    known = parts.facts(cell.defence, cell.told.labels, name, batch.clients, batch.batch_size)
    known |= cell.threat.given
    known |= cell.attack.given if cell.attack else {}
    declared = [(parts.defence_parameters(cell.defence.name), cell.defence.given)]
    declared.append((parameters(threat_models[cell.threat.name]), cell.threat.given))
    if cell.attack:
        declared.append((parameters(attacks.kind(name)), _resolved(cell.attack)))
    found: dict[str, Plain] = {}
    for taken, given in declared:
        for key, each in taken.items():
            if parts.applies(each, known) and (key in given or each.has_default):
                found.setdefault(each.column, given.get(key, each.default))
    if found.get("train_batch_size") == "batch":  # the column holds numbers
        found["train_batch_size"] = parts.units(cell)
    return found


def _resolved(attack: Part) -> dict[str, Plain]:
    """The values of an attack's parameters, its preset's included; as given, where it cannot be made."""
    try:
        return attacks.create(attack.name, **attack.given).resolved().values()
    except Exception:  # of anybody's attack: the cell's own error says what is wrong
        return attack.given

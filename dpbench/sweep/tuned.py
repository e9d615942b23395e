"""Parameters of an attack that `python -m dpbench.tune` chose, and the cells that they are for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import attacks
from dpbench.cell import parts
from dpbench.cell.spec import Cell, Part, Plain, Tuning
from dpbench.protocol import InputError, meant, parameters
from dpbench.system import digest
from dpbench.system.paths import expanded, open_file, read_toml

BUDGET = "iterations"
"""A search may be longer or shorter than those it was tuned in."""


@dataclass(frozen=True)
class Condition:
    """The values for one setting.

    Attributes:
        setting: what they are for, as `setting` describes it.
        values: the attack's parameters that differ from its defaults; none where nothing did better.
        code: hash of the code that was tuned.
        tuning: where the values are from.
    """

    setting: Mapping[str, Plain]
    values: Mapping[str, Plain]
    code: str
    tuning: Tuning


def setting(cell: Cell) -> dict[str, Plain]:
    """What tuned values are for: victim, batch size, defence, threat and what the attacker is told.

    The images are left out, and so is how long the attack may search.
    """
    batch, told = cell.batch, cell.told
    found: dict[str, Plain] = {name: getattr(batch, name) for name in ("batch_size", "model", "norm")}
    found |= {name: getattr(batch, name) for name in ("victim", "weights", "logit_scale", "label_draw")}
    found |= {} if batch.trainable == "all" else {"trainable": batch.trainable}
    found |= {"labels": told.labels, "bn_stats": told.bn_stats, "generator": told.generator}
    found |= {"defense": cell.defence.name, "threat_model": cell.threat.name, "attack": cell.attack.name}
    for part in (cell.defence, cell.threat, cell.attack):
        found |= {name: value for name, value in part.parameters if name != BUDGET}
    return {name: value for name, value in found.items() if value is not None}


class Tuned:
    """A file of tuned values.

    Args:
        file: its path, for messages.
        content: what it holds, of unknown origin.
        digest: hash of it.

    Attributes:
        digest: likewise.
        left: one sentence for each setting that the file has no values for, as `applied` meets them.

    Raises:
        InputError: for what `python -m dpbench.tune` would not have written.
    """

    def __init__(self, file: Path, content: Mapping[str, Any], digest: str) -> None:
        self._file, self.digest, self.left = file, digest, dict[str, None]()
        try:
            self._attack, self._searched = str(content["attack"]), tuple(content["space"])
            self._conditions = [self._condition(each, content) for each in content["conditions"]]
        except InputError as error:
            raise InputError(f"{file}: {error}") from None
        except (KeyError, TypeError, ValueError, AttributeError):
            raise InputError(
                f"{file} holds no tuned values: give the tuned.toml that python -m dpbench.tune wrote."
            ) from None

    def applied(self, cells: Iterable[Cell]) -> list[Cell]:
        """The cells of a batch with tuned values, and more undefended ones.

        Whatever runs under a defence also runs undefended with the same values, so that it can be told
        whether the attack works without the defence.

        Args:
            cells: of one batch, without floors, the undefended ones first.

        Raises:
            InputError: where none of them is of the tuned attack, or a tuned parameter was given, too.
        """
        undefended: dict[Cell, None] = {}
        defended: dict[Cell, None] = {}
        bare: dict[tuple, Cell] = {}
        asked = list(cells)
        if not any(cell.attack.name == self._attack for cell in asked):
            raise InputError(f"{self._file} has values for {self._attack}: give that as `attack`.")
        for cell in asked:
            chosen = self._with_values(cell)
            if cell.defence.name == "none":
                bare[_paired(cell)] = cell
                undefended[chosen] = None
            else:
                defended[chosen] = None
                if chosen.tuned is not None:
                    twin = with_values(bare[_paired(cell)], chosen.attack.given, chosen.tuned)
                    undefended[twin] = None
        distinct = {cell.key(): cell for cell in undefended}
        return [*distinct.values(), *defended]

    def changed(self, cells: Iterable[Cell]) -> list[str]:
        """A sentence where other code was tuned than that of `cells`."""
        codes = {each.tuning: each.code for each in self._conditions}
        differs = any(
            cell.tuned and codes[cell.tuned] != cell.runtime.code for cell in cells if not cell.floor
        )
        return (
            [f"The code of attacks, defences or metrics has changed since {self._file} was made."]
            if differs
            else []
        )

    def _with_values(self, cell: Cell) -> Cell:
        if cell.attack.name != self._attack:
            return cell
        if twice := [name for name in cell.attack.given if name in self._searched]:
            raise InputError(f"`{twice[0]}` is one of the parameters that `tuned` decides: leave it out.")
        found = next((each for each in self._conditions if each.setting == setting(cell)), None)
        if found is None:
            what = f"{cell.defence.name} and batches of {cell.batch.batch_size}"
            line = f"{self._file} has no values for {what} in this setting: the defaults hold there."
            self.left[line] = None
            return cell
        return with_values(cell, cell.attack.given | dict(found.values), found.tuning)

    def _condition(self, stored: Mapping[str, Any], content: Mapping[str, Any]) -> Condition:
        known = parameters(attacks.kind(self._attack))
        for name in stored["values"]:
            if name not in known:
                raise InputError(f"{self._attack} has no parameter {name!r}{meant(name, known)}.")
        values = {name: known[name].checked(value) for name, value in stored["values"].items()}
        seeds = [*content["batch_seed"], *content["check_seed"]]
        where = f"{content['data']}, batch seeds {min(seeds)} to {max(seeds)}"
        tuning = Tuning(
            source=f"{self._file.name} {self.digest}: {where}",
            data=str(content["data"]),
            places=tuple(map(int, stored["images"])),
        )
        return Condition(dict(stored["setting"]), values, str(stored["code"]), tuning)


def load(path: str) -> Tuned:
    """The tuned values in a file.

    Raises:
        InputError: there is no such file, or it holds something else.
    """
    file = expanded(path)
    content = read_toml(file)
    with open_file(file) as opened:
        return Tuned(file, content, digest.content(opened.read()))


def with_values(cell: Cell, given: Mapping[str, Plain], tuning: Tuning | None = None) -> Cell:
    """The cell with these parameters of its attack, as far as they play a role in it.

    Args:
        cell: any with an attack.
        given: the attack's parameters; those that are missing are at their defaults.
        tuning: where they are from.
    """
    kind = attacks.kind(cell.attack.name)
    batch = cell.batch
    known = parts.facts(
        cell.defence, cell.told.labels, cell.attack.name, batch.clients, batch.batch_size
    ) | dict(given)
    declared = parameters(kind)
    kept = {
        name: value
        for name, value in given.items()
        if parts.applies(declared[name], known) and value != declared[name].default
    }
    attack = Part(name=cell.attack.name, parameters=tuple(sorted(kept.items())))
    return replace(cell, attack=attack, tuned=tuning)


def _paired(cell: Cell) -> tuple[Any, ...]:
    """What a cell has in common with its undefended one."""
    return (cell.told, cell.threat.name, cell.attack.name, cell.attack_seed, _searching(cell.attack))


def _searching(attack: Part) -> tuple[tuple[str, Plain], ...]:
    known = parameters(attacks.kind(attack.name))
    return tuple((name, value) for name, value in attack.parameters if not known[name].only_if)

"""From what was asked for to cells: every combination, with its undefended cells and its floors.

Every batch and attack brings its undefended cell and its floors along, so that no defence is credited with an
attack that fails anyway. A parameter multiplies only the cells in which it plays a role.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, Protocol

import attacks
from dpbench.cell import parts
from dpbench.cell.floors import OF_A_BATCH, Floor
from dpbench.cell.spec import BatchSpec, Cell, Part, Plain, Runtime, Told
from dpbench.cell.threats import threat_models
from dpbench.privacy import Aggregation, Budget, delta_note
from dpbench.privacy.vouched import vouched
from dpbench.protocol import InputError, Parameter, parameters
from dpbench.sweep.axes import options

Values = Mapping[str, tuple[Any, ...]]
"""Option to the values that were asked for; an empty tuple leaves every part its own default.

Attacks and defences are names, which every parameter multiplies, or parts whose parameters are settled.
"""


class Inputs(Protocol):
    """What cells are about: it draws batches, finds weights and hashes what decides a result."""

    def batches(self, values: Values, left_out: dict[str, None]) -> Iterator[BatchSpec]:
        """Every batch of every victim; reasons for those that cannot be had go into `left_out`."""

    def has_batch_norm(self, batch: BatchSpec) -> bool:
        """Whether the victim has batch-norm layers, so that their statistics say something."""

    def generator_digest(self, generator: str, batch: BatchSpec) -> str:
        """A hash of the generator's weights; empty where it cannot be had."""

    def code(self, cell: Cell) -> str:
        """A hash of the code that decides the cell's outcome."""


@dataclass(frozen=True)
class Plan:
    """The cells of a sweep, in the order they run.

    Attributes:
        cells: none twice.
        left_out: one sentence for each combination that cannot be had.
        idle: budgets that were asked for and that no defence of the cells takes, by the option's name.
        unused: attacks that were asked for and that none of the threat models asked for can use.
    """

    cells: tuple[Cell, ...]
    left_out: tuple[str, ...] = ()
    idle: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()

    def cautions(self) -> list[str]:
        """What a reader of the budgets has to know, each sentence once."""
        budgeted = [cell.defence for cell in self.cells if parts.has_budget(cell.defence.name)]
        budgets = [
            Budget(**{name: value for name, value in defence.given.items() if name in parameters(Budget)})
            for defence in budgeted
        ]
        notes = list(map(_of_delta, budgets))
        notes += [
            f"`{name}` plays no role: it is for dp and other calibrated defences, and no cell has one."
            for name in self.idle
        ]
        notes += [
            f"{name} is not run, as it is no attack of the threat model asked for: leave `threat_model` out, "
            "and it runs under its own."
            for name in self.unused
        ]
        notes += [
            vouched(name)
            for name in dict.fromkeys(cell.defence.name for cell in self.cells)
            if parts.is_calibrated_by_others(name)
        ]
        return list(dict.fromkeys(note for note in notes if note))


def _of_delta(budget: Budget) -> str | None:
    said = delta_note(budget.delta, budget.train_size)
    if said is None or budget.eps_scope == "training":
        return said
    # nobody says how large the training of a release is
    return f"`delta` {budget.delta:g} is only for trainings of fewer than {1 / budget.delta:,.0f} samples."


def plan(
    values: Values,
    inputs: Inputs,
    runtime: Runtime,
    tell: Callable[[int], None] = lambda _: None,
    change: Callable[[list[Cell]], list[Cell]] = lambda cells: cells,
) -> Plan:
    """Expand `values`: every batch with its undefended cells, its defended cells, and its floors.

    Values that play no role in a cell are dropped (`eps` multiplies calibrated defences only), and so are the
    duplicates this leaves.

    Args:
        values: what varies.
        inputs: where batches, weights and code are from.
        runtime: where the cells run.
        tell: called with the number of cells so far, batch by batch.
        change: what becomes of the cells of a batch, undefended ones first, before their floors are added.

    Raises:
        InputError: for an unknown part, or if nothing is left; with the first reason.
    """
    for name in values["threat_model"]:
        _ = threat_models[name]
    for asked in values["attack"]:
        attacks.kind(_name(asked))
    chosen: dict[Cell, None] = {}
    left_out: dict[str, None] = {}
    alike: dict[tuple[Any, ...], list[Cell]] = {}  # batches of one size differ in nothing but the batch
    for batch in inputs.batches(values, left_out):
        tell(len(chosen))
        for told in _told(values, inputs, batch):
            key = told, batch.clients, batch.batch_size
            if key not in alike:
                alike[key] = list(_attacked(values, batch, told, runtime))
            attacked = change([_about(cell, batch, inputs) for cell in alike[key]])
            # floors last: some take as long as their attack, and who runs out of time has what was asked for
            for cell in (*attacked, *_floors(attacked)):
                code = inputs.code(cell)
                chosen[replace(cell, runtime=replace(cell.runtime, code=code))] = None
    if not chosen:
        raise InputError(
            next(iter(left_out), "There is nothing to run: give at least one defence and one attack.")
        )
    calibrated = any(parts.is_calibrated(name) for name in {cell.defence.name for cell in chosen})
    idle = () if calibrated else tuple(name for name in ("eps", "noise_multiplier") if values[name])
    used = {asked for _, asked in _attackers(values)}
    named = () if values["attack"] == options()["attack"].default else values["attack"]
    unused = tuple(_name(asked) for asked in named if asked not in used)
    return Plan(tuple(chosen), tuple(left_out), idle, unused)


def _told(values: Values, inputs: Inputs, batch: BatchSpec) -> Iterator[Told]:
    normed = inputs.has_batch_norm(batch)
    for labels, source in product(values["labels"], values["bn_stats"] if normed else ("none",)):
        yield Told(labels=labels, bn_stats=source)


def _about(cell: Cell, batch: BatchSpec, inputs: Inputs) -> Cell:
    """The same cell of this batch, with the generator that there is for it."""
    told = cell.told
    if told.generator:
        told = replace(told, generator_digest=inputs.generator_digest(told.generator, batch))
    return replace(cell, batch=batch, told=told)


def _attacked(values: Values, batch: BatchSpec, told: Told, runtime: Runtime) -> Iterator[Cell]:
    """The undefended cells of a batch, then the defended ones; without hashes of generators."""
    for protection in dict.fromkeys(("none", *values["defense"])):
        for defence in defences(protection, values, batch.clients):
            for threat_name, asked in _attackers(values):
                attack_name = _name(asked)
                known = parts.facts(defence, told.labels, attack_name, batch.clients, batch.batch_size)
                kind, threat = attacks.kind(attack_name), parameters(threat_models[threat_name])
                # what attack and threat model share, the threat model decides
                own = {key: each for key, each in parameters(kind).items() if key not in threat}
                for threat_given in _combinations(threat, values, known):
                    met = known | dict(threat_given)
                    for attack_given in _asked(asked, own, values, met):
                        for seed, source in product(
                            values["attack_seed"], values["generator"] if known["generator"] else (None,)
                        ):
                            yield Cell(
                                batch=batch,
                                defence=defence,
                                threat=Part(name=threat_name, parameters=threat_given),
                                told=replace(told, generator=source),
                                attack=Part(name=attack_name, parameters=attack_given),
                                attack_seed=seed,
                                runtime=runtime,
                            )


def _name(asked: str | Part) -> str:
    return asked if isinstance(asked, str) else asked.name


def _asked(
    asked: str | Part, own: Mapping[str, Parameter], values: Values, known: Mapping[str, Any]
) -> Iterator[tuple[tuple[str, Plain], ...]]:
    """The parameters of an attack: every combination for a name, just its own for an object."""
    if isinstance(asked, str):
        yield from _combinations(own, values, known)
    else:
        yield tuple(
            (name, value)
            for name, value in asked.parameters
            if name in own and parts.applies(own[name], {**known, **asked.given})
        )


def defences(asked: str | Part, values: Values, clients: int = 1) -> Iterator[Part]:
    """The defence with every combination of its parameters; a given noise takes the place of a budget.

    Of an object its parameters are settled, and who adds the noise of several `clients` is not.
    """
    known = {"defended": True, "aggregated": clients > 1}
    if isinstance(asked, Part):
        noise = parts.is_calibrated(asked.name) and "noise_multiplier" in asked.given
        given = {**asked.given, "eps": None} if noise else asked.given
        free = parameters(Aggregation) if parts.is_calibrated(asked.name) else {}
        for more in _combinations(free, values, known):
            yield Part(name=asked.name, parameters=tuple(sorted({**given, **dict(more)}.items())))
        return
    name = asked
    taken = parts.defence_parameters(name)
    given_noise = bool(values.get("noise_multiplier"))
    unused = "eps" if given_noise else "noise_multiplier"
    taken = {key: each for key, each in taken.items() if not (parts.is_calibrated(name) and key == unused)}
    for given in _combinations(taken, values, known):
        if parts.is_calibrated(name) and given_noise:
            given = tuple(sorted((*given, ("eps", None))))
        yield Part(name=name, parameters=given)


def _combinations(
    taken: Mapping[str, Parameter], values: Values, known: Mapping[str, Any]
) -> Iterator[tuple[tuple[str, Plain], ...]]:
    """All combinations of the values asked for, as what differs from the defaults, sorted by name.

    A parameter's value is a fact for those declared after it: `train_size` plays a role under one
    `eps_scope`.
    """
    for found in _expanded(list(taken.values()), values, dict(known)):
        yield tuple(sorted(found.items()))


def _expanded(left: list[Parameter], values: Values, known: dict[str, Any]) -> Iterator[dict[str, Plain]]:
    if not left:
        yield {}
        return
    first, *rest = left
    asked = values.get(first.name, ()) if parts.applies(first, known) else ()
    if not asked and not first.has_default and parts.applies(first, known):
        raise InputError(f"`{first.name}` needs a value: {first.help}.")
    for value in dict.fromkeys(map(first.checked, asked)) if asked else (first.default,):
        changed = {first.name: value} if asked and not (first.has_default and value == first.default) else {}
        for others in _expanded(rest, values, known | {first.name: value}):
            yield changed | others


def _attackers(values: Values) -> list[tuple[str, str | Part]]:
    """Pairs of threat model and attack, the threat models in the order of their registration.

    A threat model that none of the attacks asked for is made for brings its own.
    """
    pairs = {(threat, asked): None for asked in values["attack"] for threat in _threats_of(asked, values)}
    for lacking in dict.fromkeys(values["threat_model"]):
        if lacking not in {threat for threat, _ in pairs}:
            own = [name for name in attacks.names() if attacks.kind(name).threat_models[0] == lacking]
            if not own:
                suited = [n for n in attacks.names() if threat_models[lacking].suits(attacks.kind(n))]
                advice = f"name one of {', '.join(suited)}" if suited else "its `suits` takes none"
                raise InputError(
                    f"None of the attacks asked for can be used under the threat model {lacking}: {advice}."
                )
            pairs |= {(lacking, name): None for name in own}
    order = list(threat_models)
    return sorted(pairs, key=lambda pair: order.index(pair[0]))


def _threats_of(asked: str | Part, values: Values) -> tuple[str, ...]:
    kind = attacks.kind(_name(asked))
    if values["threat_model"]:
        return tuple(t for t in values["threat_model"] if threat_models[t].suits(kind))
    return kind.threat_models[:1]


def _floors(attacked: list[Cell]) -> Iterator[Cell]:
    """What can be had without this batch's gradient; the floor of the start comes with undefended rows."""
    undefended = [cell for cell in attacked if cell.defence.name == "none"]
    for floor in OF_A_BATCH:
        for cell in undefended[:1]:
            told = Told(bn_stats=cell.told.bn_stats, labels=cell.told.labels)
            runtime = replace(cell.runtime, engine="eager")
            yield Cell(batch=cell.batch, told=told, attack=None, floor=floor, runtime=runtime)
    for cell in undefended:
        rebuilds = threat_models[cell.threat.name].rebuilds_images
        if rebuilds and attacks.kind(cell.attack.name).noise_floor:
            yield replace(cell, floor=Floor.NOISE_GRADIENT)

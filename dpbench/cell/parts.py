"""The parts that a cell names, made from what it says; and what their parameters mean for its rows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any

import attacks
import defenses
from dpbench import privacy
from dpbench.cell import correlated
from dpbench.cell.spec import Cell, Part, Plain
from dpbench.cell.threat_model import ThreatModel, threat_models
from dpbench.privacy.aggregation import Aggregation
from dpbench.privacy.budget import Budget
from dpbench.protocol import ORACLES, Guarantee, InputError, Parameter, parameters

Facts = Mapping[str, Any]
"""What decides whether a parameter plays a role (`Parameter.only_if`).

A fact may be a function of the others and of the parameters' values, as far as these are known.
"""


def defence_parameters(name: str) -> dict[str, Parameter]:
    """All that the stages of a defence take, the budget of a calibrated one included.

    Raises:
        InputError: for an unknown defence.
    """
    stages = defenses.stages(name)
    found: dict[str, Parameter] = {}
    if is_calibrated(name):
        found |= parameters(Budget) | parameters(Aggregation)
    elif is_gaussian(name):  # the noise is given, so its epsilon follows
        found |= {key: each for key, each in parameters(Budget).items() if key != "eps"}
    for stage in stages:
        found |= parameters(stage)
    return found


def is_calibrated(name: str) -> bool:
    """Whether a stage of the defence takes a guarantee, so that its noise follows from a budget."""
    return any("guarantee" in stage.__dataclass_fields__ for stage in defenses.stages(name))


def is_calibrated_by_others(name: str) -> bool:
    """Whether a stage that takes a guarantee is a plug-in's, so that nobody here has tested its noise."""
    return any(
        "guarantee" in stage.__dataclass_fields__ and stage.__module__.partition(".")[0] != "defenses"
        for stage in defenses.stages(name)
    )


def clip_norm(name: str, given: Mapping[str, Plain]) -> float:
    """C of a calibrated defence: as given, or by default; 1 for one whose clip norm is no parameter."""
    declared = defence_parameters(name).get("max_grad_norm")
    return given.get("max_grad_norm", declared.default if declared else 1.0)


def is_gaussian(name: str) -> bool:
    """Whether the defence begins with clipping and noise, which together are the Gaussian mechanism."""
    return name.split("+")[:2] == ["clip", "noise"]


def has_budget(name: str) -> bool:
    """Whether the defence has an epsilon: its noise follows from a budget, or the other way round."""
    return is_calibrated(name) or is_gaussian(name)


def facts(
    defence: Part, told_labels: str, attack: str | None, clients: int = 1, batch_size: int = 1
) -> dict[str, Any]:
    """The facts of a cell that `Parameter.only_if` and `Attack.adapts` ask for."""
    budget = parameters(Budget)["eps_scope"].default
    stages = defenses.stages(defence.name)
    answers = attack is not None and bool(stages)
    return {
        "defended": defence.name != "none",
        "adapts": partial(attacks.kind(attack).adapts, [each.name for each in stages]) if answers else False,
        "repeatable": any(stage.repeatable or stage.remembers for stage in stages),
        "eps_scope": defence.given.get("eps_scope", budget),
        "labels": told_labels,
        "aggregated": clients > 1,
        "several": batch_size * clients > 1 and (defence.given.get("unit") != "user" or batch_size == 1),
        "generator": attack is not None and "image_generator" in attacks.kind(attack).needs,
        "local": lambda values: values.get("local_epochs") is not None,
    }


def applies(declared: Parameter, known: Facts) -> bool:
    """Whether a parameter plays a role in a cell with these facts."""
    found = {name: known.get(name) for name in declared.only_if}
    return all(
        (found[name](known) if callable(found[name]) else found[name]) == value
        for name, value in declared.only_if.items()
    )


def attack_class(cell: Cell) -> type[attacks.Attack]:
    """The class of a cell's attack."""
    return attacks.kind(cell.attack.name)


def symbols() -> dict[str, str]:
    """What logs and tables call each parameter."""
    registered = (attacks.attacks, threat_models, defenses.defenses_registry)
    return _symbols((Budget, Aggregation, *(part for registry in registered for part in registry.values())))


@lru_cache(maxsize=2)
def _symbols(kinds: tuple[type, ...]) -> dict[str, str]:
    return {name: each.symbol for kind in kinds for name, each in parameters(kind).items()}


def attack_of(cell: Cell) -> attacks.Attack:
    """The attack of a cell, or the one whose floor it is.

    Raises:
        InputError: for an unknown attack, a hyper-parameter outside its range, or one that contradicts the
            threat model.
    """
    kind = attacks.kind(cell.attack.name)
    engine = {"engine": cell.runtime.engine} if "engine" in kind.__dataclass_fields__ else {}
    # what the threat model knows, the attack is told: the chance that the sample is in a release
    shared = {name: value for name, value in threat_of(cell).values().items() if name in parameters(kind)}
    for name, value in shared.items():
        own = cell.attack.given.get(name, value)
        if own != value:
            raise InputError(
                f"`{name}` is {own} in the attack {cell.attack.name} and {value} in the threat model "
                f"{cell.threat.name}: give both the same value."
            )
    return attacks.create(cell.attack.name, **{**cell.attack.given, **shared}, **engine)


def wants(cell: Cell, name: str) -> bool:
    """Whether the attack of `cell` makes use of that field of `Knowledge`."""
    return cell.attack is not None and name in attacks.create(cell.attack.name, **cell.attack.given).wants()


def threat_of(cell: Cell) -> ThreatModel:
    """The threat model of a cell.

    Raises:
        InputError: for an unknown one, or a parameter outside its range.
    """
    return threat_models[cell.threat.name](**cell.threat.given)


def defence_of(cell: Cell) -> defenses.Chain:
    """The defence of a cell, calibrated where it has a budget.

    With several clients it is the one whose release of all their images has the noise of their mean, whoever
    adds it.

    Raises:
        InputError: for an unknown defence, a parameter outside its range or a budget out of reach; for a
            defence that does not add up over several clients.
    """
    chain = of_one_client(cell)
    if cell.batch.clients == 1:
        return chain
    return defenses.Chain(tuple(_on_sum(cell, stage) for stage in chain.stages))


def of_one_client(cell: Cell) -> defenses.Chain:
    """The defence with the noise that was asked for, as if there were one client; errors of `defence_of`."""
    given = {name: v for name, v in cell.defence.given.items() if name not in parameters(Aggregation)}
    budget = {name: given.pop(name) for name in parameters(Budget) if name in given}
    if is_calibrated(cell.defence.name):
        _check_declared(cell.defence.name)
        return calibrated(cell.defence.name, given, _guarantee(cell, budget, given.get("noise_multiplier")))
    return defenses.create(cell.defence.name, **given)


def _check_declared(name: str) -> None:
    """InputError where sigma is no public parameter, by which attacks make the defence again."""
    for stage in defenses.stages(name):
        if "guarantee" in stage.__dataclass_fields__ and "noise_multiplier" not in parameters(stage):
            raise InputError(
                f"{stage.name} takes a `guarantee`, so it must declare its `noise_multiplier` as dp does: "
                "derive the class from `defenses.dp_sgd.DPSGD`, or leave out the field `guarantee`."
            )


def aggregation_of(cell: Cell) -> Aggregation:
    """Who adds the noise of several clients."""
    given = cell.defence.given
    return Aggregation(**{name: given[name] for name in parameters(Aggregation) if name in given})


def hides_noise(cell: Cell) -> bool:
    """Whether the attacker is the server that adds the noise, and so has seen the sum without it."""
    several = cell.batch.clients > 1 and is_calibrated(cell.defence.name)
    server = threat_models[cell.threat.name].is_server
    return several and server and aggregation_of(cell).noise == "central"


def _on_sum(cell: Cell, stage: defenses.Defense) -> defenses.Defense:
    """A stage of each client as one that has the noise of their mean."""
    if not stage.adds_up:
        raise InputError(
            f"{stage.name} changes each client's gradient by itself, and no attack knows what the sum then "
            "says: use none, clip, noise, dp or dp-ftrl with several `clients`."
        )
    if stage.name == "noise":
        return replace(stage, noise_std=stage.noise_std / math.sqrt(cell.batch.clients))
    if "guarantee" not in stage.__dataclass_fields__:
        return stage
    sigma = aggregation_of(cell).on_sum(stage.noise_multiplier, cell.batch.clients)
    if sigma == stage.noise_multiplier:
        return stage
    given = cell.defence.given
    budget = {name: given[name] for name in parameters(Budget) if name in given}
    return replace(stage, noise_multiplier=sigma, guarantee=_guarantee(cell, budget, sigma))


def calibrated(name: str, given: Mapping[str, Any], guarantee: Guarantee) -> defenses.Chain:
    """The defence with the noise of a guarantee, which it carries.

    Raises:
        InputError: for a parameter that is missing or outside its range.
    """
    made = {**given, "noise_multiplier": guarantee.noise_multiplier, "guarantee": guarantee}
    # a class may have a clip norm without declaring it as a parameter
    if any("max_grad_norm" in stage.__dataclass_fields__ for stage in defenses.stages(name)):
        made["max_grad_norm"] = guarantee.max_grad_norm
    return defenses.create(name, **made)


def guarantee_of(cell: Cell, chain: defenses.Chain) -> Guarantee | None:
    """The privacy that a release of `chain` carries in this cell; None where there is none.

    Un-noised statistics of the batch that leave the client beside the gradient void every guarantee. Noise
    that the attacker adds itself gives none.
    """
    if cell.told.bn_stats in ORACLES or hides_noise(cell):
        return None
    if not is_gaussian(cell.defence.name):
        return chain.guarantee
    given = cell.defence.given
    budget = {name: given[name] for name in parameters(Budget) if name in given}
    clip, noise = chain.stages[:2]
    if noise.noise_std == 0:
        return None
    images = cell.batch.batch_size * cell.batch.clients
    sigma = privacy.gaussian_claim(noise.noise_std, images, clip.max_grad_norm)
    return _guarantee(cell, budget | {"eps": None}, sigma)


def _guarantee(cell: Cell, budget: Mapping[str, Plain], noise_multiplier: float | None) -> Guarantee:
    """The budget's guarantee for as many releases as the cell's attacker gets."""
    if noise_multiplier is not None:
        budget = {**budget, "eps": None}
    threat, unit = threat_of(cell).values(), unit_of(cell)
    asked = {
        "max_grad_norm": clip_norm(cell.defence.name, cell.defence.given),
        "batch_size": units(cell),
    }
    first = defenses.stages(cell.defence.name)[0]
    if first.remembers:
        own = {name: value for name, value in cell.defence.given.items() if name in parameters(first)}
        stage = first(**own | {"noise_multiplier": 1.0})
        inclusion, releases = threat.get("inclusion", 1.0), threat["releases"]
        found = correlated.guarantee(stage, Budget(**budget), noise_multiplier, releases, inclusion, asked)
        return replace(found, unit=unit)
    found = _found(
        Budget(**budget),
        noise_multiplier=noise_multiplier,
        releases=threat["releases"],
        inclusion=threat.get("inclusion", 1.0),
        **asked,
    )
    return replace(found, unit=unit)


@lru_cache(maxsize=64, typed=True)
def _found(budget: Budget, **asked: Any) -> Guarantee:
    """`Budget.guarantee`, for which each of the hundreds of releases of an informed attacker asks often."""
    return budget.guarantee(**asked)


def unit_of(cell: Cell) -> str:
    """What the guarantee of a cell is about: a `record`, or a `user`, who is a client."""
    return cell.defence.given.get("unit", "record")


def units(cell: Cell) -> int:
    """How many units of a cell's guarantee are attacked at a time: images of one client, or clients."""
    batch = cell.batch
    return (
        batch.clients
        if unit_of(cell) == "user"
        else min(batch.batch_size, batch.expected or batch.batch_size)
    )

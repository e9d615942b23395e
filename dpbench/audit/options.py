"""The options of an audit: its own, and the parameters of every registered defence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import defenses
from dpbench.audit.files import is_outcome
from dpbench.cell import registered
from dpbench.cell.parts import calibrated, clip_norm, defence_parameters, is_calibrated
from dpbench.privacy import Aggregation, Budget
from dpbench.protocol import InputError, Parameter, parameters
from dpbench.sweep.axes import merged
from dpbench.sweep.option import Option
from dpbench.sweep.reading import named_plugins, read_options
from dpbench.system.paths import absolute, kind_of

COMMAND = "python -m dpbench.audit"
DESCRIPTION = """Find out what a defence's releases give away of one sample, and whether it claims less.

The exit status is 1 where the audited epsilon is above the claimed one, or where the noise is not that of the
Gaussian release that is claimed: both are bugs. An audit finds leaks; it cannot prove that there is none.
"""
AUDIT, DEFENCE, OUTPUT = "the audit", "the defence", "output"
GROUPS = (DEFENCE, AUDIT, OUTPUT)


def _own(
    group: str, name: str, kind: type, default: Any, help: str, hint: str = "", **ranges: float
) -> Option:
    several = isinstance(default, tuple)
    return Option(
        Parameter(name, kind, (), True, default, help, **ranges), default, several, group, hint=hint
    )


OWN = (
    _own(
        DEFENCE,
        "defense",
        str,
        "dp",
        "the defence, by its registered name, or one of your own; chained by +, as in dp+prune",
    ),
    _own(
        AUDIT,
        "claimed_eps",
        float,
        None,
        "check this claim in place of the defence's own guarantee",
        hint="the guarantee's",
        at_least=0,
    ),
    _own(AUDIT, "batch_size", int, 4, "samples in a batch, the canary among them", at_least=2, below=10_000),
    _own(
        AUDIT,
        "releases",
        int,
        20_000,
        "releases made for each of the four canaries, half of them with it",
        at_least=1,
        below=10**9,
    ),
    _own(
        AUDIT,
        "seconds",
        float,
        None,
        "make fewer releases where so many would take longer than about this",
        hint="no limit",
        above=0,
        unit="s",
    ),
    _own(AUDIT, "confidence", float, 0.95, "chance of a correct defence to pass, at least", above=0, below=1),
    _own(AUDIT, "seed", int, 0, "decides canaries and noise", at_least=0),
    _own(
        OUTPUT,
        "out",
        str,
        None,
        "file for the outcome, as JSON; as audit*.json in a run's folder it is part of that run's report",
        hint="none",
    ),
    _own(OUTPUT, "quiet", bool, False, "print errors only; the exit status tells the outcome"),
    _own(
        OUTPUT,
        "plugin",
        str,
        (),
        "modules or .py files with defences of your own, imported first",
        hint="none",
    ),
)


def options() -> dict[str, Option]:
    """Every option by name. One release is audited, so of a budget its epsilon and delta matter alone."""
    found = {each.name: each for each in OWN}
    parts = {name: defence_parameters(name) for name in defenses.defenses_registry}
    unused = (parameters(Budget) | parameters(Aggregation)).keys() - {"eps", "delta"}
    for declared, hint in merged(parts):
        if declared.name not in found and declared.name not in unused:
            found[declared.name] = Option(declared, None, False, DEFENCE, hint=hint)
    return found


def parse(arguments: Sequence[str]) -> dict[str, Any]:
    """The checked options of a command line; None leaves the defence its own default.

    Raises:
        InputError: for what cannot be understood or lies outside its range; options stand in backquotes.
    """
    registered.load(named_plugins(arguments))
    known = options()
    upon = {name: each.default for name, each in known.items()}
    found = read_options(known, GROUPS, arguments, COMMAND, DESCRIPTION, upon)
    return {name: known[name].checked(value) for name, value in found.items()}


def check_place(out: str | None) -> None:
    """InputError where the outcome could not be written, before minutes of releases."""
    if out is None:
        return
    file = absolute(out)
    if kind_of(file.parent) != "folder" or kind_of(file) not in (None, "file"):
        raise InputError(f"{file} cannot be a file in a folder that is there: name another with `out`.")
    if kind_of(file) == "file" and not is_outcome(file):
        raise InputError(f"{file} holds something else than an audit, and is kept: name another with `out`.")


def defence_of(given: Mapping[str, Any]) -> defenses.Chain:
    """The defence that is audited, with the guarantee of one release where it has a budget.

    Raises:
        InputError: for an unknown defence, a parameter that is missing, or `eps` together with a
            `noise_multiplier`.
    """
    name, taken = given["defense"], defence_parameters(given["defense"])
    chosen = {key: given[key] for key in taken if given.get(key) is not None}
    if not is_calibrated(name):
        if given["eps"] is not None:
            raise InputError(f"{name} spends no budget: leave out `eps` (see `claimed_eps`).")
        own = {key: value for key, value in chosen.items() if key not in parameters(Budget)}
        return defenses.create(name, **own)
    if given["eps"] is not None and given["noise_multiplier"] is not None:
        raise InputError("Give `eps` or `noise_multiplier`, not both: one follows from the other.")
    noise = chosen.pop("noise_multiplier", None)
    spent = {key: chosen.pop(key) for key in ("eps", "delta") if key in chosen}
    if noise is not None:
        spent["eps"] = None
    guarantee = Budget(eps_scope="release", **spent).guarantee(
        noise_multiplier=noise,
        max_grad_norm=clip_norm(name, chosen),
        batch_size=given["batch_size"],
    )
    guarantee = replace(guarantee, unit=chosen.get("unit", guarantee.unit))
    return calibrated(name, chosen, guarantee)

"""The options of `decide`: the training, what is asked for, what is attacked, and where to write it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from dpbench.cell import registered
from dpbench.privacy.budget import Budget
from dpbench.protocol import InputError, Parameter, parameters
from dpbench.sweep.axes import options as of_sweeps
from dpbench.sweep.option import Option
from dpbench.sweep.reading import named_plugins, read_options
from dpbench.system.paths import check_place

COMMAND = "python -m dpbench.decide"
DESCRIPTION = """Which epsilon for this training? What follows from each, before anything is attacked.

Prints a line for each epsilon, or for the risk that you set: the noise, and what an attacker can get at most.
With --run it also measures what attacks get, and what the noise costs in accuracy: about 80 minutes on two
idle cores. The same command again continues where it stopped.
"""
TRAINING, QUESTION, MEASURED, OUTPUT = "the training", "the question", "what run measures", "output"
GROUPS = (TRAINING, QUESTION, MEASURED, OUTPUT)
ATTACKED = {
    "data": "cifar10",
    "image_size": None,
    "model": ("convnet",),
    "victim": (),
    "weights": None,
    "batch_size": (1,),
    "label_draw": ("distinct",),
    "attack": (),
    "threat_model": (),
    "device": "auto",
    "plugin": (),
}
"""Options of a frontier that users set here, and where they begin."""
_HINTS = {"attack": "the set of docs/decide.md", "threat_model": "all three, or each attack's usual one"}
GRID = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Epsilons that are shown where nothing is asked for."""


def _own(
    group: str, name: str, kind: type, default: Any, help: str, hint: str = "", **ranges: float
) -> Option:
    several = isinstance(default, tuple)
    declared = Parameter(name, kind, (), default is None, default, help, **ranges)
    return Option(declared, default, several, group, hint=hint)


def options() -> dict[str, Option]:
    """Every option by name."""
    declared = parameters(Budget)
    # nothing is attacked here, so there is no attacked batch that could be the whole one
    batch = replace(declared["train_batch_size"], words=(), help="expected batch of the training")
    size = replace(declared["train_size"], help="images in the training set")
    training = (size, batch, declared["epochs"], declared["delta"])
    listed = " ".join(f"{eps:g}" for eps in GRID)
    found = [Option(each, each.default, False, TRAINING) for each in training]
    found += [
        _own(
            QUESTION,
            "eps",
            float,
            (),
            "budgets of the training",
            f"{listed}, unless a target is given",
            above=0,
        ),
        _own(
            QUESTION,
            "target_bound",
            float,
            None,
            "largest bound on reconstruction over the whole training, at prior `kappa`: gives its noise",
            "none",
            above=0,
            below=1,
        ),
        _own(
            QUESTION,
            "target_server_bound",
            float,
            None,
            "the same for a server that knows which batches hold the image: gives its noise",
            "none",
            above=0,
            below=1,
        ),
        _own(
            QUESTION,
            "target_advantage",
            float,
            None,
            "largest membership advantage over the whole training: gives its noise",
            "none",
            above=0,
            below=1,
        ),
        _own(
            QUESTION,
            "kappa",
            float,
            0.1,
            "chance of your attacker to rebuild an image without the training",
            above=0,
            below=1,
        ),
        _own(
            QUESTION,
            "images_per_user",
            int,
            10,
            "images of one person in the training set",
            at_least=1,
            at_most=1000,
        ),
        _own(
            OUTPUT,
            "out",
            str,
            None,
            "a folder for decide.csv, decide.json and decide.png, and for all that is measured",
            "nothing is written",
        ),
        _own(OUTPUT, "quiet", bool, False, "do not show how far it is"),
        _own(MEASURED, "run", bool, False, "measure the frontier of each threat model, and accuracy"),
        _own(
            MEASURED,
            "quick",
            bool,
            False,
            "ten batches at every noise level, a curve without verdicts: minutes",
        ),
        _own(
            MEASURED,
            "workers",
            int,
            2,
            "processes: with 2, accuracy is measured beside the frontier",
            at_least=1,
            at_most=2,
        ),
    ]
    sweeps = of_sweeps()
    found += [
        replace(sweeps[name], default=default, group=MEASURED, hint=_HINTS.get(name, sweeps[name].hint))
        for name, default in ATTACKED.items()
    ]
    return {each.name: each for each in found}


def parse(arguments: Sequence[str]) -> dict[str, Any]:
    """The checked options of a command line; `--help` is printed and ends the program.

    Raises:
        InputError: for what cannot be understood or lies outside its range; options stand in backquotes.
    """
    registered.load(named_plugins(arguments))
    known = options()
    upon = {name: each.default for name, each in known.items()}
    found = read_options(known, GROUPS, arguments, COMMAND, DESCRIPTION, upon)
    given = {name: known[name].checked(value) for name, value in found.items()}
    targets = {name: value for name, value in given.items() if name.startswith("target_")}
    for name in ("target_bound", "target_server_bound"):
        if targets[name] is not None and targets[name] <= given["kappa"]:
            raise InputError(
                f"`{name}` {targets[name]:g} is not above `kappa` {given['kappa']:g}, which the "
                "attacker has without the training: choose a larger one."
            )
    if not given["eps"] and set(targets.values()) == {None}:
        given["eps"] = GRID
    _check_run(given, [name for name in known if known[name].group == MEASURED and given[name] != upon[name]])
    return given


def _check_run(given: dict[str, Any], measured: list[str]) -> None:
    if given["run"] and given["out"] is None:
        raise InputError("Give the folder for what `run` measures as `out`.")
    # before the answer is computed
    if given["out"] is not None:
        check_place(given["out"])
    if not given["run"] and measured:
        raise InputError(f"`{measured[0]}` is about what is attacked: give `run` with it.")

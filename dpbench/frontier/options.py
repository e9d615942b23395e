"""The words of the command line: a sweep's, but for what a frontier sets itself, and three of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from dpbench.cell import registered
from dpbench.frontier.command import LEVELS, NOT_HERE, OWN_DEFAULTS
from dpbench.protocol import InputError, Parameter
from dpbench.sweep.axes import options as of_sweeps
from dpbench.sweep.option import FIRST, GROUPS, Option
from dpbench.sweep.reading import as_flags, named_plugins, read_options


def options() -> dict[str, Option]:
    """Every option by name."""
    own = (
        Parameter("levels", float, (), True, LEVELS, "noise multipliers, fixed beforehand", above=0),
        Parameter("quick", bool, (), True, False, "ten batches at every level: a curve without verdicts"),
    )
    found = {each.name: Option(each, each.default, isinstance(each.default, tuple), FIRST) for each in own}
    for name, each in of_sweeps().items():
        if name not in NOT_HERE:
            hint = "one is needed" if name == "out" else each.hint
            found[name] = replace(each, default=OWN_DEFAULTS.get(name, each.default), hint=hint)
    return found


def parse(arguments: Sequence[str], command: str, description: str) -> dict[str, Any]:
    """The keywords of `dpbench.frontier.frontier`, and `quiet`; `--help` is printed and ends the program.

    Raises:
        InputError: for what cannot be understood, or no folder; options stand in backquotes.
    """
    registered.load(named_plugins(arguments))
    known = options()
    upon = {name: each.default for name, each in known.items()}
    found = read_options(known, GROUPS, arguments, command, description, upon)
    if found["out"] is None:
        raise InputError("Give the folder for the results as `out`.")
    own = ("levels", "quick", "quiet", "out")
    return {name: value for name, value in found.items() if name in own or value != upon[name]}


def as_typed(sentence: str) -> str:
    """A message with the options as they are typed."""
    return as_flags(sentence, options())

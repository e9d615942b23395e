"""The words of the command line: a sweep's, but for what a frontier sets itself, and two of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dpbench.frontier.command import LEVELS, NOT_HERE, OWN_DEFAULTS
from dpbench.protocol import Parameter
from dpbench.sweep.axes import changed
from dpbench.sweep.option import FIRST, Option
from dpbench.sweep.reading import as_flags, read_changed


def options() -> dict[str, Option]:
    """Every option by name."""
    own = (
        Parameter("levels", float, (), True, LEVELS, "noise multipliers, fixed beforehand", above=0),
        Parameter("quick", bool, (), True, False, "ten batches at every level: a curve without verdicts"),
    )
    found = {each.name: Option(each, each.default, isinstance(each.default, tuple), FIRST) for each in own}
    return found | changed(NOT_HERE, OWN_DEFAULTS, {"out": "one is needed"})


def parse(arguments: Sequence[str], command: str, description: str) -> dict[str, Any]:
    """The keywords of `dpbench.frontier.frontier`, and `quiet`; `--help` is printed and ends the program.

    Raises:
        InputError: for what cannot be understood, or no folder; options stand in backquotes.
    """
    return read_changed(options, arguments, command, description)


def as_typed(sentence: str) -> str:
    """A message with the options as they are typed."""
    return as_flags(sentence, options())

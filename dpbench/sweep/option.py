"""What an option is: a declared parameter, and how a sweep takes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dpbench.protocol import InputError, Parameter

SCENE, DEFENCES, ATTACKS = "what is attacked", "defences", "attacks"
WHERE, OUTPUT = "where it runs", "output"
FIRST = "most used"
GROUPS = (FIRST, SCENE, DEFENCES, ATTACKS, WHERE, OUTPUT)
MOST_USED = (
    *("defense", "eps", "attack", "batch_size", "model", "data", "suite", "out", "resume", "dry_run"),
)
"""The options that people use first: shown before all others."""
EACH_ITS_OWN = ()
"""The value of an option where every part keeps its own default."""


@dataclass(frozen=True)
class Option:
    """One option of a sweep.

    Attributes:
        parameter: name, kind, help and range of one value.
        default: the value, or values, unless given.
        several: it takes several values, and every combination is run.
        group: one of `GROUPS`.
        decides: it decides results, and so belongs to a run's configuration.
        hint: what the help says of the default.
    """

    parameter: Parameter
    default: Any
    several: bool
    group: str
    decides: bool = True
    hint: str = ""

    @property
    def name(self) -> str:
        """As in Python."""
        return self.parameter.name

    @property
    def may_be_empty(self) -> bool:
        """Whether no value at all says something: that every part keeps its own."""
        return self.several and self.default == EACH_ITS_OWN

    def checked(self, value: Any) -> Any:
        """A value, or a sequence of them, in plain Python.

        Where several truth values may be given, the words `yes` and `no` will do, as on the command line.

        Raises:
            InputError: for a value of another type or outside the range; the name stands in backquotes.
        """
        if not self.several:
            return None if value is None else self.parameter.checked(value)
        values = value if isinstance(value, list | tuple) else (value,)
        if self.parameter.kind is bool:
            values = [{"yes": True, "no": False}.get(v, v) if isinstance(v, str) else v for v in values]
        return tuple(self.parameter.checked(each) for each in values)

    def given(self, value: Any) -> Any:
        """As `checked`, of what somebody wrote down: a list of no values is a slip, and not the default.

        Raises:
            InputError: as `checked`, and for an empty list.
        """
        if self.several and isinstance(value, list | tuple) and not value:
            raise InputError(f"`{self.name}` needs at least one value.")
        return self.checked(value)


def option(
    group: str,
    name: str,
    kind: type,
    default: Any,
    help: str,
    *,
    decides: bool = True,
    hint: str = "",
    choices: tuple[str, ...] = (),
    **ranges: float,
) -> Option:
    """An option of sweeps themselves; a default that is a tuple makes it take several values."""
    several = isinstance(default, tuple)
    declared = Parameter(name, kind, choices, default is None, default, help, **ranges)
    return Option(declared, default, several, group, decides, hint)

"""Reads declared options off a command line, in groups, and writes messages in the command line's words."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Container, Mapping, Sequence
from itertools import pairwise
from typing import Annotated, Any, Literal

import tyro

from dpbench.cell import registered
from dpbench.protocol import InputError
from dpbench.sweep.option import GROUPS, Option
from dpbench.system.command_line import read


def read_options(
    known: Mapping[str, Option],
    groups: Sequence[str],
    arguments: Sequence[str],
    command: str,
    description: str,
    upon: Mapping[str, Any],
) -> dict[str, Any]:
    """The value of every option; `--help` is printed and ends the program.

    Args:
        known: the options by name.
        groups: of the help, in their order.
        arguments: without the program's name.
        command: the program's name, as users type it.
        description: what the help begins with.
        upon: the values of options that are not given.

    Raises:
        InputError: for what cannot be understood.
    """
    classes = {}
    for group in groups:
        members = {name: each for name, each in known.items() if each.group == group}
        fields = [
            (name, _type(each, known), dataclasses.field(default=_typed(each, upon[name])))
            for name, each in members.items()
        ]
        classes[group] = dataclasses.make_dataclass(_identifier(group), fields, kw_only=True)
        classes[group].__doc__ = " "
    whole = dataclasses.make_dataclass(
        "Options",
        [
            (
                _identifier(group),
                # an empty help: tyro would look for one in the sources, at a quarter of the time
                Annotated[cls, tyro.conf.arg(name=group, help="", prefix_name=False)],
                dataclasses.field(default_factory=cls),
            )
            for group, cls in classes.items()
        ],
        kw_only=True,
    )
    whole.__doc__ = description
    found = read(whole, arguments, command)
    _check_filled(known, arguments)
    values: dict[str, Any] = {}
    for group in groups:
        values |= vars(getattr(found, _identifier(group)))
    return {name: _plain(known[name], values[name]) for name in known}


def read_changed(
    options: Callable[[], Mapping[str, Option]], arguments: Sequence[str], command: str, description: str
) -> dict[str, Any]:
    """`quiet`, `out` and the options that are not at their defaults, for a command that needs a folder.

    Args:
        options: gives every option by name, once the plug-ins are loaded.
        arguments: without the program's name.
        command: the program's name, as users type it.
        description: what the help begins with.

    Raises:
        InputError: for what cannot be understood, or no folder; options stand in backquotes.
    """
    registered.load(named_plugins(arguments))
    known = options()
    upon = {name: each.default for name, each in known.items()}
    found = read_options(known, GROUPS, arguments, command, description, upon)
    if found["out"] is None:
        raise InputError("Give the folder for the results as `out`.")
    return {name: value for name, value in found.items() if name in ("quiet", "out") or value != upon[name]}


def as_flags(sentence: str, known: Container[str]) -> str:
    """A message with the options `known` as they are typed.

    Example:
        >>> as_flags("`max_grad_norm` must be above 0; `other` stays.", {"max_grad_norm"})
        '--max-grad-norm must be above 0; `other` stays.'
    """

    def flag(match: re.Match[str]) -> str:
        name = match.group(1)
        return f"--{name.replace('_', '-')}" if name in known else match.group(0)

    return re.sub(r"`([a-z][a-z0-9_]*)`", flag, sentence)


def named_plugins(arguments: Sequence[str]) -> list[str]:
    """What follows --plugin: it has to be known before the options are, as plugins bring options along."""
    found, inside = [], False
    for word in arguments:
        if word.startswith("--"):
            name, equals, value = word.partition("=")
            inside = name == "--plugin"
            found += [value] if inside and equals else []
        elif inside:
            found.append(word)
    return found


def _check_filled(known: Mapping[str, Option], arguments: Sequence[str]) -> None:
    """InputError for an option that takes several values and is given none, as `--eps $EPS` may be."""
    for word, following in pairwise([*arguments, "--"]):
        name = word.removeprefix("--").replace("-", "_")
        if word.startswith("--") and name in known and known[name].several and following.startswith("--"):
            known[name].given(())


def _identifier(group: str) -> str:
    return group.replace(" ", "_")


def _type(option: Option, known: Container[str]) -> Any:
    """What tyro has to read: words for yes and no where several values may be given."""
    declared = option.parameter
    one: Any = Literal[declared.choices] if declared.choices else declared.kind
    if declared.words:
        one = one | Literal[declared.words]
    if option.several:
        one = tuple[Literal["yes", "no"] if declared.kind is bool else one, ...]
    elif option.default is None:
        one = one | None
    text = as_flags(declared.help, known) + (f" [{declared.unit}]" if declared.unit else "")
    hint = {"help_behavior_hint": f"({as_flags(option.hint, known)})"} if option.hint else {}
    return Annotated[one, tyro.conf.arg(help=text, **hint)]


def _typed(option: Option, value: Any) -> Any:
    if option.several and option.parameter.kind is bool:
        return tuple("yes" if each else "no" for each in value)
    return value


def _plain(option: Option, value: Any) -> Any:
    if option.several and option.parameter.kind is bool:
        return tuple(each == "yes" for each in value)
    return value

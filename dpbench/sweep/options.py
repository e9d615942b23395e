"""The words of the command line, and what they stand for."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attacks
from dpbench.cell import registered
from dpbench.cell.parts import defence_parameters
from dpbench.protocol import InputError
from dpbench.sweep import suite
from dpbench.sweep.axes import options
from dpbench.sweep.option import GROUPS, Option
from dpbench.sweep.own_options import OWN
from dpbench.sweep.reading import as_flags, named_plugins, read_options
from dpbench.victim.given import is_given, training_of
from dpbench.victim.networks import models

COMMAND = "python -m dpbench.run"
DESCRIPTION = """Attack gradients of real images with and without a defence, and see what comes back.

Options with [...] take several values; every combination is run. The undefended rows of each batch and its
floors (what can be had without the gradient) are added. The same command again continues where it stopped.
"""
MOST_CELLS = 1_000_000


class Options(Mapping[str, Any]):
    """The value, or the values, of every option by name; also as attributes."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = dict(values)

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name not in self._values:
            raise AttributeError(name)
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def replaced(self, **changes: Any) -> Options:
        """A copy with other values."""
        return Options(self._values | changes)

    def configuration(self) -> dict[str, Any]:
        """What decides the results and is not as it is by default: all that has to be kept of a run."""
        return {
            name: self[name]
            for name, each in options().items()
            if each.decides and name in self and (self[name] != each.default or not each.may_be_empty)
        }


def defaults() -> Options:
    """Every option as it is unless given."""
    return Options({name: each.default for name, each in options().items()})


def parse(arguments: Sequence[str]) -> Options:
    """The checked options of a command line; `--help` is printed and ends the program.

    Raises:
        InputError: for what cannot be understood or can never work, in one sentence.
    """
    registered.load(named_plugins(arguments))
    given = _read(arguments, defaults())
    if given.suite is not None:  # once more, upon the suite's values, so that those given here win
        values = suite.load(given.suite, _deciding())
        registered.load(values.get("plugin", ()))
        given = _read(arguments, defaults().replaced(**values))
    return checked(given)


def checked(given: Options) -> Options:
    """`given` with what follows from it filled in.

    Raises:
        InputError: for values that can never work; options stand in backquotes.
    """
    known, values = options(), {}
    for name, value in given.items():
        each = known[name]
        values[name] = each.checked(value) if each.may_be_empty else each.given(value)
    given = Options(values)
    if given.eps and given.noise_multiplier:
        raise InputError("Give `eps` or `noise_multiplier`, not both: one follows from the other.")
    for name in given.model:
        _ = models[name]
    if _combinations(given) > MOST_CELLS:
        raise InputError(
            f"That is more than {MOST_CELLS:,} combinations: give fewer values, or split them into several."
        )
    if given.weights is not None and (len(given.model) > 1 or len(given.victim) > 1):
        raise InputError("`weights` is one network's file: give one `model` and one `victim` with it.")
    attack = tuple(attacks.names()) if "all" in given.attack else given.attack
    states = {training_of(name) if is_given(name) else "early" for name in given.model}
    if given.weights is None and not given.victim and len(states) > 1:
        raise InputError(
            f"These models are {' and '.join(sorted(states))}: say `victim`, or run them one after the other."
        )
    victim = given.victim or (tuple(states) if given.weights is None else ("trained",))
    return given.replaced(attack=attack, victim=victim)


def _combinations(given: Options) -> int:
    """How many there are at most; a defence's parameters multiply that defence alone."""
    counts = {name: len(value) or 1 for name, value in given.items() if isinstance(value, tuple)}
    own = [counts.keys() & defence_parameters(name) for name in given.defense]
    others = counts.keys() - {"defense"} - set().union(*own)
    defended = sum(math.prod(counts[name] for name in names) for names in own)
    return max(1, defended) * math.prod(counts[name] for name in others)


def in_words_of_the_command_line(sentence: str) -> str:
    """A message with its options as they are typed: `max_grad_norm` in backquotes becomes --max-grad-norm.

    Example:
        >>> in_words_of_the_command_line("`eps` must be above 0, not 0.")
        '--eps must be above 0, not 0.'
    """
    try:
        known = set(options())
    except InputError:  # a part has the name of one of our own, and the sentence may be about that
        known = {each.name for each in OWN}
    return as_flags(sentence, known)


def _deciding() -> dict[str, Option]:
    return {name: each for name, each in options().items() if each.decides}


def _read(arguments: Sequence[str], upon: Options) -> Options:
    """The options on the command line, those not given as in `upon`."""
    return Options(read_options(options(), GROUPS, arguments, COMMAND, DESCRIPTION, upon))

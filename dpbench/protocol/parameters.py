"""Parameters declared once, where they are used: everything else follows from the declaration.

From it follow the options of the command line with their help and choices, the keywords of `benchmark`, the
axes of a sweep, the columns of the results, the labels in tables, and the checks of ranges.

Example:
    >>> @dataclass(frozen=True, kw_only=True)
    ... class Blur(Declared):
    ...     radius: float = parameter(1.0, "radius of the blur", unit="px", at_least=0)
    >>> Blur(radius=2).changed()
    {'radius': 2.0}
    >>> Blur(radius=-1)
    Traceback (most recent call last):
    ...
    dpbench.protocol.errors.InputError: `radius` must be at least 0, not -1.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from dpbench.protocol.errors import InputError

KINDS = (bool, int, float, str)
"""What a parameter may hold; also `Literal` of strings, a number or a `Literal`, and any of these or None."""
LARGEST = 2**63
"""Whole numbers stay below it, or no table could hold them."""


@dataclass(frozen=True)
class Parameter:
    """One declared parameter.

    Attributes:
        name: as in Python; the command line writes it with dashes.
        kind: `bool`, `int`, `float` or `str`.
        choices: the words that a `str` may be; empty where any will do.
        words: the words that a number may be instead; empty where it has to be a number.
        optional: None is allowed too.
        default: `dataclasses.MISSING` where a value has to be given.
        help: one line, in lower case and without a full stop.
        unit: of the number; empty for plain numbers and words.
        symbol: what tables and logs call it; its name unless given.
        column: in the results; its name unless given.
        only_if: facts of a cell under which the parameter plays a role: `defended` (bool), `adapts` (bool:
            the attack has an answer to the defence), `labels` (`known` or `inferred`), `repeatable` (bool:
            the defence draws noise or remembers, so that releases differ), `aggregated` (bool: there are
            several clients), `local` (bool: the client sends the update of local steps), `eps_scope`.
            Elsewhere it does not multiply the cells and its column is empty.
        repeats: it says how often something is repeated, so results that differ in it are pooled, not kept
            apart.
        above: the number must be larger.
        at_least: the number must not be smaller.
        below: the number must be smaller.
        at_most: the number must not be larger.
        tuning: the ends, both included, of the range that `python -m dpbench.tune` searches; None where it
            searches the parameter only if it is a word or a truth value and asked for by name.
    """

    name: str
    kind: type
    choices: tuple[str, ...]
    optional: bool
    default: Any
    help: str
    unit: str = ""
    symbol: str = ""
    column: str = ""
    only_if: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    repeats: bool = False
    above: float | None = None
    at_least: float | None = None
    below: float | None = None
    at_most: float | None = None
    tuning: tuple[float, float] | None = None
    words: tuple[str, ...] = ()

    @property
    def has_default(self) -> bool:
        """Whether it may be left out."""
        return self.default is not dataclasses.MISSING

    def checked(self, value: Any) -> Any:
        """`value` as a plain Python value of the parameter's kind.

        Raises:
            InputError: for another type, a value outside the range, or none of the choices; the sentence
                names the parameter in backquotes.
        """
        if hasattr(value, "item"):  # NumPy's and PyTorch's scalars
            value = value.item()
        if value is None and self.optional:
            return None
        if self.choices:
            if value not in self.choices:
                raise InputError(
                    f"`{self.name}` must be one of {', '.join(self.choices)}, not {_shown(value)}."
                )
            return value
        if self.words and isinstance(value, str):
            if value not in self.words:
                raise InputError(
                    f"`{self.name}` must be {_WORDS[self.kind]} or {' or '.join(self.words)}, not "
                    f"{_shown(value)}."
                )
            return value
        if self.kind is float and type(value) is int:
            value = float(value) if abs(value) < LARGEST else math.inf if value > 0 else -math.inf
        if type(value) is not self.kind:  # a bool is no number here
            raise InputError(f"`{self.name}` must be {_WORDS[self.kind]}, not {_shown(value)}.")
        if self.kind in (int, float):
            self._check_range(value)
        return value

    def _check_range(self, value: float) -> None:
        if abs(value) >= LARGEST or value != value:
            raise InputError(f"`{self.name}` must be a finite number below 2**63, not {_shown(value)}.")
        for words, bound, holds in (
            ("above", self.above, self.above is None or value > self.above),
            ("at least", self.at_least, self.at_least is None or value >= self.at_least),
            ("below", self.below, self.below is None or value < self.below),
            ("at most", self.at_most, self.at_most is None or value <= self.at_most),
        ):
            if not holds:
                raise InputError(f"`{self.name}` must be {words} {bound:g}, not {value:g}.")


def _shown(value: Any) -> str:
    """A value in a message; Python prints no whole number of thousands of digits."""
    if type(value) is int and abs(value) >= 10**60:
        return "a number of more than 60 digits"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


_WORDS = {bool: "True or False", int: "a whole number", float: "a number", str: "a word"}


def parameter(
    default: Any,
    help: str,
    *,
    unit: str = "",
    symbol: str = "",
    column: str = "",
    only_if: Mapping[str, Any] | None = None,
    repeats: bool = False,
    above: float | None = None,
    at_least: float | None = None,
    below: float | None = None,
    at_most: float | None = None,
    tuning: tuple[float, float] | None = None,
) -> Any:
    """A dataclass field that declares a parameter; see `Parameter` for what the arguments mean.

    Args:
        default: the value unless given; `dataclasses.MISSING` makes it a required one.
        help: one line, in lower case and without a full stop.
        unit: of the number.
        symbol: what tables and logs call it.
        column: in the results, where it is not the name.
        only_if: when it plays a role.
        repeats: it is a number of repetitions.
        above: exclusive lower end of the range.
        at_least: inclusive lower end.
        below: exclusive upper end.
        at_most: inclusive upper end.
        tuning: ends of the range that a tuning searches.
    """
    declared = {
        "help": help,
        "unit": unit,
        "symbol": symbol,
        "column": column,
        "only_if": dict(only_if or {}),
        "repeats": repeats,
        "above": above,
        "at_least": at_least,
        "below": below,
        "at_most": at_most,
        "tuning": tuning,
    }
    return dataclasses.field(default=default, metadata={"parameter": declared})


@cache
def parameters(cls: type) -> dict[str, Parameter]:
    """The parameters that dataclass `cls` declares, by name, in order; those it inherits included.

    Raises:
        TypeError: for a parameter of a type that no command line could read, or with a default that it may
            not have.
    """
    hints, found = get_type_hints(cls), {}
    for each in fields(cls):
        if "parameter" in each.metadata:
            found[each.name] = _resolved(
                each.name, hints[each.name], each.default, each.metadata["parameter"]
            )
    return found


def _resolved(name: str, hint: Any, default: Any, declared: Mapping[str, Any]) -> Parameter:
    members = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    given = [member for member in members if member is not NoneType]
    kinds = [member for member in given if get_origin(member) is not Literal]
    choices = tuple(word for member in given if member not in kinds for word in get_args(member))
    kind = kinds[0] if kinds else str
    good = len(kinds) <= 1 and kind in KINDS and all(type(word) is str for word in choices)
    if not good or not given or (choices and kinds and kind not in (int, float)):
        raise TypeError(
            f"Parameter {name} is declared as {hint}; use bool, int, float, str or Literal of strings, "
            "a number | Literal of strings, or one of them | None."
        )
    named = {**declared, "symbol": declared["symbol"] or name, "column": declared["column"] or name}
    named["words"] = choices if kinds else ()
    found = Parameter(name, kind, () if kinds else choices, len(given) < len(members), default, **named)
    if found.has_default:
        try:
            found.checked(default)
        except InputError as error:
            raise TypeError(
                f"The default of a parameter has to be a value that it may have: {error}"
            ) from None
    return found


class Declared:
    """Base of frozen keyword-only dataclasses whose parameters are checked as they are made."""

    def __post_init__(self) -> None:
        for name, declared in parameters(type(self)).items():
            object.__setattr__(self, name, declared.checked(getattr(self, name)))

    def values(self) -> dict[str, Any]:
        """Every parameter's value, by name."""
        return {name: getattr(self, name) for name in parameters(type(self))}

    def changed(self) -> dict[str, Any]:
        """The parameters that differ from their defaults: all that has to be kept to make this again."""
        known = parameters(type(self))
        return {name: value for name, value in self.values().items() if value != known[name].default}


_MEANINGS: dict[str, tuple[Parameter, str]] = {}


def declare(cls: type) -> None:
    """Note the parameters of `cls`, so that one name means one thing in the whole program.

    Raises:
        TypeError: where another class declares a parameter of that name with another type, help or unit.
    """
    home = f"{cls.__module__}.{cls.__qualname__}"
    for name, found in parameters(cls).items():
        known, where = _MEANINGS.setdefault(name, (found, home))
        same = ("kind", "choices", "words", "help", "unit", "column")
        differs = [part for part in same if getattr(known, part) != getattr(found, part)]
        if differs and where == home:  # a notebook's cell, edited and run again
            _MEANINGS[name] = (found, home)
        elif differs:
            raise TypeError(
                f"Parameter {name} of {home} has another {differs[0]} than that of {where} "
                f"({getattr(found, differs[0])!r}, {getattr(known, differs[0])!r}): give it another name, or "
                "the same meaning."
            )

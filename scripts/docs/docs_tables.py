"""Tables of the site that follow from declarations, so that they cannot go stale."""

from __future__ import annotations

import contextlib
import inspect
import io
import os
import re
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from importlib.util import find_spec
from types import MappingProxyType
from typing import Any

import attacks
import defenses
from dpbench.__main__ import COMMANDS
from dpbench.cell import registered
from dpbench.cell.parts import defence_parameters, is_calibrated
from dpbench.protocol import Parameter, parameters
from dpbench.store.columns import ROLES, columns
from dpbench.sweep.option import Option

registered.load()

KNOWLEDGE = {
    "labels": "the labels",
    "image_generator": "an image generator",
    "image_denoiser": "a denoiser of images",
    "image_statistics": "statistics of public images",
    "public_images": "public images",
    "candidates": "candidates for the image",
}
"""What an attack may need, in words."""
ELSEWHERE = {"run": "dpbench.sweep"}
"""Packages that declare the options of a command in the place of its own."""
WIDTH = "80"
"""Columns of a help text that is shown as it is printed."""


def attack(name: str) -> str:
    """What an attack's class says and declares: whose attack it is, which defences it answers, parameters.

    Of its description the first sentence is left out, in whose place the page has more.
    """
    kind = attacks.kind(name)
    needs = ", ".join(KNOWLEDGE.get(field, field) for field in sorted(kind.needs))
    answered = [each for each in defenses.defenses_registry if kind.adapts((each,), {})]
    facts = {
        "Threat model": ", ".join(f"`{threat}`" for threat in kind.threat_models),
        "Needs, beside the model": needs or "nothing",
        "Answers, with `--adaptive yes`": ", ".join(f"`{each}`" for each in answered)
        if "adaptive" in parameters(kind)
        else "",
    }
    more = _described(kind).partition("\n\n")[2]
    return f"{more}\n\n{_facts(facts)}\n\n{_parameters(parameters(kind), _presets(kind))}"


def defence(name: str) -> str:
    """What a defence's class declares: its description, whether it is random, who answers it, parameters."""
    (kind,) = defenses.stages(name)
    answering = [each for each in attacks.names() if _answers(attacks.kind(each), name)]
    facts = {
        "Draws noise": "yes" if kind.repeatable else "no",
        "Releases depend on earlier ones": "yes" if kind.remembers else "no",
        "Noise follows from a budget": "yes: the options `--eps`, `--delta`, ..."
        if is_calibrated(name)
        else "no",
        "Attacks with `--adaptive` that answer it": ", ".join(f"`{each}`" for each in answering) or "none",
    }
    own = {key: each for key, each in defence_parameters(name).items() if key in parameters(kind)}
    return f"{_described(kind)}\n\n{_facts(facts)}\n\n{_parameters(own)}"


def options(command: str) -> str:
    """The options of a command, group by group; or its help, where they are few."""
    if command not in COMMANDS:
        raise LookupError(f"no command {command!r}")
    package = ELSEWHERE.get(command, COMMANDS[command][0].removesuffix(".__main__"))
    if find_spec(f"{package}.options") is None:
        return f"```text\n{_help(command)}\n```"
    found: Mapping[str, Option] = import_module(f"{package}.options").options()
    groups = list(dict.fromkeys(each.group for each in found.values()))
    return "\n\n".join(f"**{group[0].upper()}{group[1:]}**\n\n{_options(found, group)}" for group in groups)


def all_columns() -> str:
    """Every column of the results, by its role."""
    titles = dict(
        zip(ROLES, ("What was attacked", "How it was defended", "By whom it was attacked"), strict=False)
    )
    titles |= {"measured": "What came of it", "provenance": "Where the result is from"}
    parts = []
    for role in ROLES:
        rows = [
            (f"`{each.name}`", _holds(each.dtype, each.choices, each.unit), _code(each.meaning))
            for each in columns().values()
            if each.role == role
        ]
        parts.append(f"## {titles[role]}\n\n{_table(('Column', 'Holds', 'Meaning'), rows)}")
    return "\n\n".join(parts)


KINDS: dict[str, Callable[..., str]] = {
    "attack": attack,
    "defence": defence,
    "options": options,
    "columns": all_columns,
}
"""What a marker `<!-- dpbench: KIND NAME -->` may ask for."""


def _described(kind: type) -> str:
    """The class's docstring, less its sections."""
    text = inspect.getdoc(kind) or ""
    return re.split(r"^\w+:$", text, maxsplit=1, flags=re.MULTILINE)[0].strip()


def _answers(kind: type, name: str) -> bool:
    return "adaptive" in parameters(kind) and kind.adapts((name,), {})


def _facts(facts: Mapping[str, str]) -> str:
    return "\n".join(f"- {title}: {said}" for title, said in facts.items() if said)


def _presets(kind: type) -> dict[str, str]:
    """What stands for a None among an attack's defaults: the value of each preset."""
    declared = parameters(kind)
    if "preset" not in declared:
        return {}
    resolved = {word: kind(preset=word).resolved() for word in declared["preset"].choices}
    return {
        name: ", ".join(f"{word} {_default(getattr(each, name))}" for word, each in resolved.items())
        for name, parameter in declared.items()
        if parameter.default is None
    }


def _parameters(declared: Mapping[str, Parameter], instead: Mapping[str, str] = MappingProxyType({})) -> str:
    """A table of parameters; `instead` has what to show for some defaults."""
    rows = [
        (
            _flag(each.name),
            instead.get(each.name) or _default(each.default),
            _values(each),
            _code(each.help),
        )
        for each in declared.values()
    ]
    return _table(("Parameter", "Default", "Values", "Meaning"), rows) if rows else "It has no parameters."


def _options(found: Mapping[str, Option], group: str) -> str:
    rows = []
    for each in found.values():
        if each.group == group:
            several = " ..." if each.several and each.parameter.kind is not bool else ""
            rows.append(
                (
                    _flag(each.name),
                    _code(each.hint) or _default(each.default),
                    _values(each.parameter) + several,
                    _code(each.parameter.help),
                )
            )
    return _table(("Option", "Default", "Values", "Meaning"), rows)


def _flag(name: str) -> str:
    return f"`--{name.replace('_', '-')}`"


def _default(value: Any) -> str:
    if value is None:
        return "—"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return " ".join(_default(each) for each in value) or "each its own"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def _values(each: Parameter) -> str:
    """The words that are allowed, or the kind of number and its range."""
    if each.choices:
        return ", ".join(f"`{word}`" for word in each.choices)
    if each.kind is bool:
        return "yes, no"
    if each.kind is str:
        return "text"
    limits = (
        ("above", each.above),
        ("at least", each.at_least),
        ("below", each.below),
        ("at most", each.at_most),
    )
    said = [f"{word} {limit:,.10g}" for word, limit in limits if limit is not None]
    kind = "whole number" if each.kind is int else "number"
    words = "".join(f", or `{word}`" for word in each.words)
    return ", ".join([kind + (f" in {each.unit}" if each.unit else ""), *said]) + words


def _holds(dtype: str, choices: Iterable[str], unit: str) -> str:
    words = ", ".join(f"`{word}`" for word in choices)
    kinds = {"string": "text", "Int64": "whole number", "float64": "number", "boolean": "true or false"}
    return words or kinds[dtype] + (f", {unit}" if unit else "")


def _code(text: str) -> str:
    """A help text, in which backquotes hold parameters by their Python names."""
    return text.replace("|", "\\|")


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = list(head)
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _help(command: str) -> str:
    """What `--help` prints, without colours and boxes of a terminal's width."""
    said, before = io.StringIO(), os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = WIDTH
    try:
        with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
            import_module(COMMANDS[command][0]).main(["--help"])
    finally:
        os.environ.pop("COLUMNS") if before is None else os.environ.update(COLUMNS=before)
    return re.sub(r"\x1b\[[0-9;]*m", "", said.getvalue()).strip()

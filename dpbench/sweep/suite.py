"""Named sweeps: options from a TOML file, one key per option, axes as lists.

The file is data of unknown origin: whatever it holds, it becomes options of the right types or one sentence.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from dpbench.protocol import InputError, meant
from dpbench.sweep.option import Option
from dpbench.system.paths import expanded, read_toml

PROVENANCE = ("version", "inputs", "lpips_net", "about")
"""Keys of a `config.toml`, or of a suite, that are no options."""


def names() -> tuple[str, ...]:
    """The suites that come with dpbench."""
    return tuple(sorted(entry.name.removesuffix(".toml") for entry in _home().iterdir()))


def load(name: str, known: Mapping[str, Option]) -> dict[str, Any]:
    """The options of a suite.

    Args:
        name: one of `names()`, or a file's path; a run's `config.toml` will do.
        known: the options it may set.

    Raises:
        InputError: there is none, or it holds something that is no option or of another type.
    """
    if name in names():
        return fitting(read_toml(_home() / f"{name}.toml"), known, f"Suite {name}")
    if not re.search(r"[./\\]", name):
        listed = ", ".join(names())
        raise InputError(
            f"Unknown suite {name!r}{meant(name, names())}; known: {listed}; or give a .toml file's path."
        )
    return fitting(read_toml(expanded(name)), known, name)


def fitting(stored: Mapping[str, Any], known: Mapping[str, Option], origin: str) -> dict[str, Any]:
    """`stored` with every value checked; a single value will do where several may be given.

    Args:
        stored: what a file holds.
        known: the options it may set.
        origin: the file's name, for messages.

    Raises:
        InputError: an unknown option, a value that does not fit, or the file of a run made in Python.
    """
    if "inputs" in stored and "data" not in stored:  # a model and images that no option can name
        raise InputError(
            f"{origin} is of a run that was made in Python: repeat its call, with the same `out`, to go on."
        )
    unknown = [key for key in stored if key not in known and key not in PROVENANCE]
    if unknown:
        raise InputError(
            f"{origin}: {unknown[0]!r} is no option{meant(unknown[0], known)}; known: {', '.join(known)}."
        )
    try:
        return {key: known[key].given(value) for key, value in stored.items() if key in known}
    except InputError as error:
        raise InputError(f"{origin}: {error}") from None


def _home() -> Path:
    return Path(str(files("dpbench.sweep"))) / "suites"

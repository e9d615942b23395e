"""Named sweeps: options from a TOML file, one key per option, axes as lists.

The file is data of unknown origin: whatever it holds, it becomes options of the right types or one sentence.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from dpbench.protocol import InputError

PROVENANCE = ("version", "inputs", "lpips_net", "about")
"""Keys of a `config.toml`, or of a suite, that are no options."""
LARGEST = 1_000_000
"""Bytes of a suite, at most."""


def names() -> tuple[str, ...]:
    """The suites that come with dpbench."""
    return tuple(sorted(entry.name.removesuffix(".toml") for entry in _home().iterdir()))


def load(name: str, hints: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a suite.

    Args:
        name: one of `names()`, or a file's path; a run's `config.toml` will do.
        hints: option to its type.

    Raises:
        InputError: there is none, or it holds something that is no option or of another type.
    """
    if name in names():
        return fitting(read(Path(str(_home() / f"{name}.toml"))), hints, f"Suite {name}")
    if not re.search(r"[./\\]", name):
        raise InputError(f"Unknown suite {name!r}; known: {', '.join(names())}; or give a .toml file's path.")
    return fitting(read(Path(name)), hints, name)


def read(file: Path) -> dict[str, Any]:
    """A TOML file's contents.

    Raises:
        InputError: it cannot be read, is too large or is no TOML.
    """
    try:
        if not file.is_file():
            raise InputError(f"There is no file {file}.")
        if file.stat().st_size > LARGEST:
            raise InputError(f"{file} is larger than {LARGEST} bytes, and no suite.")
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{file} cannot be read ({error.strerror}).") from None
    except InputError:
        raise
    except (ValueError, RecursionError) as error:  # TOML, Unicode, digits without end, brackets without end
        raise InputError(f"{str(file)!r} is no TOML that can be read ({error}).") from None


def fitting(stored: Mapping[str, Any], hints: Mapping[str, Any], origin: str) -> dict[str, Any]:
    """`stored` with every value in its option's type; a single value will do for an axis.

    Raises:
        InputError: an unknown option, or a value that does not fit.

    Example:
        >>> fitting({"eps": [1, 2.5], "data": "samples"}, {"eps": tuple[float, ...], "data": str}, "x.toml")
        {'eps': (1.0, 2.5), 'data': 'samples'}
    """
    unknown = [key for key in stored if key not in hints and key not in PROVENANCE]
    if unknown:
        raise InputError(f"{origin}: {unknown[0]!r} is no option; known: {', '.join(hints)}.")
    found = {}
    for key in hints.keys() & stored.keys():
        value, hint = stored[key], hints[key]
        if get_origin(hint) is tuple:
            values = value if isinstance(value, list) else [value]
            found[key] = tuple(_one(item, get_args(hint)[0], key, origin) for item in values)
        else:
            found[key] = _one(value, hint, key, origin)
    return {key: found[key] for key in stored if key in found}


def _one(value: Any, hint: Any, key: str, origin: str) -> Any:
    if get_origin(hint) is Literal:
        kinds, allowed = (str,), get_args(hint)
    else:
        kinds, allowed = tuple(kind for kind in get_args(hint) or (hint,) if kind is not NoneType), None
    if float in kinds and type(value) is int and abs(value) < 2**63:
        value = float(value)
    # exact types: a bool is no int here, and TOML also has dates, tables and arrays
    fits = type(value) in kinds and (allowed is None or value in allowed) and value == value
    if not fits or (type(value) is int and abs(value) >= 2**63):
        wanted = " or ".join(map(str, allowed or [kind.__name__ for kind in kinds]))
        raise InputError(f"{origin}: {key} takes {wanted}, not {_short(value)}.")
    return value


def _short(value: Any) -> str:
    text = str(value) if type(value) is not int else hex(value)  # decimal digits may be too many to print
    return repr(text if len(text) <= 60 else text[:60] + "...")


def _home() -> Path:
    return Path(str(files("dpbench.sweep"))) / "suites"

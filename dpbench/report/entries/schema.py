"""The schema of an entry, and entries read from files of unknown origin."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

from dpbench.protocol import InputError
from dpbench.system.paths import open_file

SCHEMA_VERSION = 1
LARGEST = 50_000_000
"""Bytes of an entry, at most."""
SHOWN = 5
"""Faults of form that are named."""


class FaultyError(ValueError):
    """What was read is no entry: one sentence without a full stop."""


def read(path: Path) -> dict[str, Any]:
    """An entry, its form not yet checked.

    Raises:
        InputError: there is no such file, or a newer dpbench wrote it.
        FaultyError: it is no JSON object.
    """
    with open_file(path) as file:
        content = file.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise FaultyError(f"it is larger than {LARGEST} bytes")
    try:
        found = json.loads(content, parse_constant=_refused)
    except (ValueError, RecursionError) as error:
        raise FaultyError(f"it is no JSON ({error})") from None
    if not isinstance(found, dict):
        raise FaultyError("it is no JSON object")
    version = found.get("schema_version")
    if type(version) is int and version > SCHEMA_VERSION:
        raise InputError(
            f"{path} has schema version {version}, and this dpbench knows those up to {SCHEMA_VERSION}: "
            "install a newer dpbench."
        )
    return found


def misshapen(found: dict[str, Any]) -> list[str]:
    """What is wrong with the form of an entry, one line each, the first `SHOWN`."""
    errors = sorted(_validator().iter_errors(found), key=lambda error: list(map(str, error.absolute_path)))
    said = []
    for error in errors[:SHOWN]:
        place = "/".join(map(str, error.absolute_path)) or "the entry"
        said.append(f"{place}: {error.message[:300]}")
    return said + ([f"and {len(errors) - SHOWN} more faults of form"] if len(errors) > SHOWN else [])


def submission_of(path: Path) -> dict[str, Any] | None:
    """What the submitter wrote into the entry at `path`; None where there is none, or it cannot be used."""
    try:
        found = read(path).get("submission")
    except (InputError, FaultyError, OSError):
        return None
    schema = _schema()["$defs"]["submission"]
    return found if Draft202012Validator(schema).is_valid(found) else None


def _refused(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON number")


@cache
def _schema() -> dict[str, Any]:
    text = (files("dpbench.report.entries") / "entry.schema.json").read_text("utf-8")
    return json.loads(text)


@cache
def _validator() -> Draft202012Validator:
    return Draft202012Validator(_schema(), format_checker=Draft202012Validator.FORMAT_CHECKER)

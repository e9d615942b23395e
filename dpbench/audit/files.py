"""The outcome of an audit as a JSON file, which a run's report reads where it lies in the run's folder."""

from __future__ import annotations

import json
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dpbench.audit.noise import Check
from dpbench.audit.report import Finding, Report
from dpbench.system.atomic import written
from dpbench.system.output import plain
from dpbench.system.paths import absolute, listed, open_file

FORMAT = 1
"""Changes when a file of the old kind can no longer be read."""


@dataclass(frozen=True)
class Stored:
    """An audit that was kept.

    Attributes:
        name: of its file.
        defense: the defence's registered name, stages joined by `+`.
        report: what was found.
    """

    name: str
    defense: str
    report: Report


def write(path: str | Path, defense: str, report: Report) -> Path:
    """Write the outcome of an audit, in place of an older file of that name.

    Args:
        path: the file; its folder must exist.
        defense: the audited defence's registered name.
        report: what was found.

    Raises:
        InputError: the file cannot be written.
    """
    text = json.dumps({"format": FORMAT, "defense": defense, **asdict(report)}, indent=2) + "\n"
    return written(absolute(path), lambda file: file.write_text(text, encoding="utf-8"))


def stored(folder: Path) -> list[Stored]:
    """The audits that lie in a run's folder as `audit*.json`, by name; a file of another kind is warned of.

    Raises:
        InputError: the folder cannot be read.
    """
    found = []
    for name in listed(folder):
        if name.startswith("audit") and name.endswith(".json"):
            try:
                with open_file(folder / name) as file:
                    found.append(_read(name, json.load(file)))
            except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
                said = plain(f"{folder / name} is no audit that can be read ({error}): it is left out.")
                warnings.warn(said, RuntimeWarning, stacklevel=2)
    return found


def _read(name: str, content: dict[str, Any]) -> Stored:
    if content.pop("format") != FORMAT:
        raise ValueError("it was written by another version")
    defense = str(content.pop("defense"))
    findings = tuple(Finding(**each) for each in content.pop("findings"))
    checks = tuple(Check(**each) for each in content.pop("checks"))
    report = Report(findings=findings, checks=checks, **content)
    _ = report.failed, report.eps + 0.0  # raises here, and not where it is used, if a value is no number
    return Stored(name, defense, report)

"""The outcome of an audit as a JSON file, which a run's report reads where it lies in the run's folder."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from dpbench.audit.report import Report
from dpbench.protocol import InputError
from dpbench.system.atomic import written
from dpbench.system.paths import absolute, open_file

FORMAT = 1
"""Changes when readers of the old kind would misread the file."""


def write(path: str | Path, defense: str, report: Report) -> Path:
    """Write the outcome of an audit, in place of an older file of that name.

    The file has the fields of `Report`, its `eps`, `exceeded` and `failed`, and as `departures` the names of
    the failed checks that count.

    Args:
        path: the file; its folder must exist.
        defense: the audited defence's registered name, stages joined by `+`.
        report: what was found.

    Raises:
        InputError: the file cannot be written.
    """
    found = {
        "format": FORMAT,
        "defense": defense,
        "failed": report.failed,
        "exceeded": report.exceeded,
        "eps": report.eps,
        "departures": [check.name for check in report.departures],
        **asdict(report),
    }
    text = json.dumps(found, indent=2) + "\n"
    return written(absolute(path), lambda file: file.write_text(text, encoding="utf-8"))


def is_outcome(path: Path) -> bool:
    """Whether a file is one that `write` made, so that another one may take its place."""
    try:
        with open_file(path) as file:
            found = json.load(file)
    except (InputError, OSError, ValueError, RecursionError):
        return False
    return isinstance(found, dict) and "departures" in found

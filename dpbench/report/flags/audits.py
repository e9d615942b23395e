"""Audits that lie in a run's folder, as `python -m dpbench.audit --out` writes them."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dpbench.system.output import Notice, plain
from dpbench.system.paths import listed, open_file

FORMAT = 1
LARGEST = 1_000_000
"""Bytes of a file that is read, at most."""


@dataclass(frozen=True)
class Audit:
    """What a report says of an audit.

    Attributes:
        name: of its file.
        defense: the defence's registered name, stages joined by `+`.
        eps: the audited epsilon of one release, a lower bound.
        claimed_eps: what it claims; None where it claims nothing.
        exceeded: `eps` is above the claim.
        departures: checks that its noise fails, by name.
        checks: how many there were.
        releases: made for each canary.
        canaries: how many there were.
        confidence: of all bounds and checks together.
    """

    name: str
    defense: str
    eps: float
    claimed_eps: float | None
    exceeded: bool
    departures: tuple[str, ...]
    checks: int
    releases: int
    canaries: int
    confidence: float


def audits(folder: Path) -> Iterator[Audit]:
    """Those of the files `audit*.json`, by name; one that cannot be read is left out with a warning.

    A link is not followed: a folder that somebody sent could have it lead to any file of the reader's.
    """
    for name in listed(folder):
        path = folder / name
        if name.startswith("audit") and name.endswith(".json") and not path.is_symlink():
            try:
                with open_file(path) as file:
                    yield _audit(name, json.loads(file.read(LARGEST)))
            except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
                said = plain(f"{path} is no audit that can be read ({error!r}): it is left out.")
                warnings.warn(said, Notice, stacklevel=2)


def _audit(name: str, found: dict[str, Any]) -> Audit:
    if found["format"] != FORMAT:
        raise ValueError("it was written by another version")
    claimed = found["claimed_eps"]
    return Audit(
        name=name,
        defense=str(found["defense"]),
        eps=float(found["eps"]),
        claimed_eps=None if claimed is None else float(claimed),
        exceeded=found["exceeded"] is True,
        departures=tuple(str(each) for each in found["departures"]),
        checks=len(found["checks"]),
        releases=int(found["releases"]),
        canaries=len(found["findings"]),
        confidence=float(found["confidence"]),
    )

"""Measured frontiers: up to which noise a leak is shown, and from which on none is seen."""

from __future__ import annotations

from typing import Any

import pandas as pd
from markupsafe import Markup

from dpbench.report.page.beside import from_json
from dpbench.report.page.figures import at_most, figure, share
from dpbench.report.page.templating import render
from dpbench.store import Store

FILE = "frontier.json"
_WORDS = (3, 7)
"""Places of the columns that hold words: attack and verdict."""


def frontiers(table: pd.DataFrame, store: Store) -> Markup | None:
    """A table for each threat model; None where the folder has no frontier."""
    found = _read(store)
    if found is None:
        return None
    return render("frontiers", frontiers=[_described(each) for each in found], words=_WORDS)


def sentences(store: Store) -> list[str]:
    """What each frontier says of itself."""
    return [str(each["sentence"]) for each in _read(store) or []]


def meaning(store: Store) -> str:
    """What the verdicts of the frontiers mean; empty where there are none, or an older version wrote them."""
    return next((str(each["meaning"]) for each in _read(store) or [] if each.get("meaning")), "")


def _read(store: Store) -> list[dict[str, Any]] | None:
    read = from_json(store.path / FILE)
    found = read.get("frontiers") if isinstance(read, dict) else None
    return found if isinstance(found, list) and found else None


def _described(found: dict[str, Any]) -> dict[str, Any]:
    rows = []
    for level in found["levels"]:
        noise = level["noise"]
        for rate in level["rates"]:
            asked, right = rate["trials"], rate["successes"]
            rows.append(
                (
                    at_most(noise["sigma"]) if noise["sigma"] else "no defence",
                    at_most(noise["eps"]),
                    at_most(noise["eps_release"]),
                    rate["attack"],
                    Markup("{} of {}").format(figure(right, "d"), figure(asked, "d")),
                    share(right / asked if asked else None, 1),
                    Markup("{} to {}").format(share(rate["low"], 1), share(rate["high"], 1)),
                    level["verdict"] or "not tested",
                )
            )
    certified = [(kappa, at_most(noise["sigma"])) for kappa, noise in found["certified"].items()]
    return {
        "threat_model": found["threat_model"],
        "sentence": found["sentence"],
        "meaning": found.get("meaning", ""),
        "setting": list(found.get("setting", {}).items()),
        "rows": rows,
        "certified": certified,
    }

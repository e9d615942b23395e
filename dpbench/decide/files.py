"""decide.csv, decide.json, decide.png, and the page that shows them."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

from dpbench import __version__
from dpbench.decide.choices import Choice, Training
from dpbench.system.atomic import made_folder, written
from dpbench.system.paths import absolute

NAMES = ("decide.csv", "decide.json", "decide.png", "report.html")
COLUMNS = tuple(each.name for each in fields(Choice) if each.name != "curve")


def write(
    folder: str | Path,
    training: Training,
    chosen: Sequence[Choice],
    measured: Mapping[str, Any] | None = None,
) -> list[Path]:
    """Write three files and the page, each wholly or not at all; older ones of these names are replaced.

    Where something was measured, the page is left to the export of the run.

    Args:
        folder: is made if it is not there.
        training: what the noise is for.
        chosen: at least one choice.
        measured: what `dpbench.decide.answer` says of what was measured; None where nothing was.

    Raises:
        InputError: where the folder cannot be made or written.
    """
    home = absolute(folder)
    made_folder(home)
    from dpbench.decide.picture import picture  # Matplotlib takes a second to import
    from dpbench.report import page  # likewise pandas
    from dpbench.report.page import folder as of_results

    rows = [{name: getattr(choice, name) for name in COLUMNS} for choice in chosen]
    files = [
        written(home / "decide.csv", lambda path: _csv(path, rows)),
        written(home / "decide.json", lambda path: _json(path, training, rows, measured)),
        written(
            home / "decide.png", lambda path: picture(training, chosen).savefig(path, format="png", dpi=200)
        ),
    ]
    if measured is not None:
        return files
    return [*files, page.write(*of_results.read(home))]


def _csv(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)


def _json(
    path: Path, training: Training, rows: Sequence[dict[str, Any]], measured: Mapping[str, Any] | None
) -> None:
    """JSON knows no infinity: an epsilon that was not found is null."""
    finite = [{n: v if math.isfinite(v) else None for n, v in row.items()} for row in rows]
    found = {
        "training": asdict(training) | {"sample_rate": training.sample_rate, "steps": training.steps},
        "adjacency": "add-remove",
        "sampling": "poisson",
        "choices": finite,
        "versions": {"dpbench": __version__, "dp-accounting": version("dp-accounting")},
    }
    if measured is not None:
        found["measured"] = measured
    path.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")

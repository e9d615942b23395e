"""One call that measures frontiers, writes them down and draws them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console

from dpbench import store
from dpbench.cell import registered
from dpbench.cell.rows import describe
from dpbench.frontier.cells import Setting
from dpbench.frontier.measure import Measurement
from dpbench.frontier.progress import Display
from dpbench.frontier.ranking import Ranking
from dpbench.frontier.result import Frontier
from dpbench.protocol import InputError, meant
from dpbench.report.export import export
from dpbench.store import Store
from dpbench.sweep.axes import options
from dpbench.sweep.options import Options, checked, defaults
from dpbench.system import process, source
from dpbench.system.atomic import replacing
from dpbench.system.paths import absolute, check_place

LEVELS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
"""Noise multipliers by default, two in each power of ten."""
OWN_DEFAULTS = {"data": "cifar10", "defense": ("dp",), "batch_size": (4,)}
"""Where a frontier begins with something else than a sweep."""
NOT_HERE = (
    *("eps", "noise_multiplier", "batch_seed", "executor", "workers", "ray_address", "gpus_per_cell"),
    *("suite", "resume", "status", "dry_run", "columns", "candidates", "trials", "tuned"),
    *("clients", "noise", "unit"),
)
"""Options of a sweep that a frontier sets itself, that make no sense where batches follow each other, or that
would make it one of something else than a client's records."""


def frontier(
    out: str | Path,
    *,
    levels: tuple[float, ...] = LEVELS,
    quick: bool = False,
    progress: bool = True,
    **parameters: Any,
) -> list[Frontier]:
    """Measures one frontier for each threat model of the attacks, in a folder that can be taken up again.

    The attacks and their weights must be fixed beforehand, on batches of seeds below 1000.

    Args:
        out: the folder. Cells that are there already are not run again.
        levels: noise multipliers above 0, fixed beforehand.
        quick: a few batches at every level: a curve without verdicts.
        progress: show how far it is, on stderr.
        parameters: options of a sweep by name, such as `attack`, `model`, `batch_size` or `train_size`; one
            value each, several for `attack`, `threat_model` and attacks' parameters.

    Returns:
        One frontier for each threat model. The folder has them as `frontier.json` and `frontier.csv`, with
        tables, plots and `report.html` as of any run.

    Raises:
        InputError: where the attacks fail undefended, and for whatever cannot be measured.
    """
    found, results = measure(out, levels=levels, quick=quick, progress=progress, **parameters)
    export(results)
    return found


def check(*, levels: tuple[float, ...], quick: bool, **parameters: Any) -> None:
    """InputError for what `measure` would refuse before its first cell; nothing is written."""
    with process.clean_state():
        registered.load(parameters.get("plugin", ()))
        setting = Setting(_options(parameters), levels)
        if not quick:
            setting.ranking.check_verdicts()


def measure(
    out: str | Path, *, levels: tuple[float, ...], quick: bool, progress: bool, **parameters: Any
) -> tuple[list[Frontier], Store]:
    """The frontiers as of `frontier`, and their folder, in which nothing else has been written yet."""
    check_place(out)  # before images are fetched
    with process.clean_state():
        registered.load(parameters.get("plugin", ()))
        setting = Setting(_options(parameters), levels)
        configuration = setting.configuration() | {"ranking": source.digest(Ranking)}
        results = store.open_run(absolute(out), configuration)
        with Display(Console(stderr=True, emoji=False), quiet=not progress) as display:
            measurement = Measurement(setting, results, display)
            measured = measurement.curve if quick else measurement.frontier
            found = [measured(threat_model) for threat_model in setting.attackers]
        results.expect((key, describe(cell)) for key, cell in measurement.counted.items())
        _write(results, found)
    return found, results


def _options(given: dict[str, Any]) -> Options:
    """The options of a sweep that `given` stands for.

    Raises:
        InputError: for one that is not known here, or a value that does not fit.
    """
    known = {name: each for name, each in options().items() if each.decides and name not in NOT_HERE}
    if unknown := [name for name in given if name not in known]:
        raise InputError(
            f"A frontier takes no {unknown[0]}{meant(unknown[0], known)}; it takes {', '.join(known)}."
        )
    values = {name: known[name].given(value) for name, value in given.items()}
    return checked(defaults().replaced(**{**OWN_DEFAULTS, **values}))


def _write(results: Store, found: list[Frontier]) -> None:
    """The frontiers' own files."""
    described = json.dumps({"frontiers": [each.described() for each in found]}, indent=2) + "\n"
    rows = pd.DataFrame([row for each in found for row in each.rows()])
    with replacing(results.path / "frontier.json") as file:
        file.write_text(described, encoding="utf-8")
    with replacing(results.path / "frontier.csv") as file:
        rows.to_csv(file, index=False)

"""What `--run` adds to the table: the frontier of each threat model, and accuracy, in one folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from dpbench.cell.scene import dataset
from dpbench.decide import attacked, costs
from dpbench.decide.choices import Choice, Training
from dpbench.decide.files import NAMES
from dpbench.frontier import command
from dpbench.frontier.cells import resolved
from dpbench.frontier.result import Frontier
from dpbench.report import export as exporting
from dpbench.store import Store
from dpbench.system import process
from dpbench.system.atomic import refused_as_sentence
from dpbench.system.paths import absolute

Note = Callable[[str], None]


@dataclass(frozen=True)
class Measured:
    """What was measured.

    Attributes:
        frontiers: one for each threat model.
        accuracy: one row for each training, columns of `dpbench.accuracy.table`; None where none was trained.
        without_accuracy: why none was; empty where some were.
    """

    frontiers: list[Frontier]
    accuracy: pd.DataFrame | None
    without_accuracy: str


def check(training: Training, given: dict[str, Any], *, quick: bool) -> None:
    """InputError for data, attacks and victims that no frontier can be of; args as of `measure`."""
    asked, _ = _asked(training, given)
    command.check(levels=(attacked.LEAST,), quick=quick, **asked)


def measure(
    training: Training,
    chosen: Sequence[Choice],
    asked: Sequence[float],
    out: str | Path,
    given: dict[str, Any],
    *,
    quick: bool,
    workers: int,
    progress: bool,
    note: Note,
) -> Measured:
    """Frontiers, then trainings; what is in the folder and in the cache folder is not done again.

    Args:
        training: what the noise is for.
        chosen: at least one choice; its noise is among the levels.
        asked: the epsilons that were asked for; the other choices go by their noise.
        out: the folder.
        given: options of a frontier that users set, `options.ATTACKED`.
        quick: a curve without verdicts, and no trainings.
        workers: with 2, another process trains beside the frontier.
        progress: show how far it is, on stderr.
        note: is told what is left out.

    Raises:
        InputError: where the attacks fail undefended, and for whatever cannot be measured.
    """
    process.configure()
    process.one_thread()
    home = absolute(out)
    _make_way(home)
    parameters, lacking = _asked(training, given)
    why_not = "accuracy takes longer than --quick has" if quick else costs.why_not(training, given["data"])
    for line in (lacking, why_not and f"No accuracy: {why_not}."):
        if line:
            note(line)
    trainings = training, chosen, asked, resolved(given["device"])
    with costs.beside(*trainings) if workers > 1 and not why_not else nullcontext():
        levels = attacked.levels(chosen)
        found, _ = command.measure(home, levels=levels, quick=quick, progress=progress, **parameters)
    accuracy = None if why_not else costs.accuracies(costs.planned(*trainings), home, progress=progress)
    return Measured(found, accuracy, why_not)


def export(out: str | Path) -> None:
    """Write everything else that a run's folder holds: tables, plots and the page.

    Raises:
        InputError: the disk is full or the folder cannot be written.
    """
    exporting.export(Store(absolute(out)))


def _asked(training: Training, given: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """The options of the frontier, and a sentence about threat models that are left out."""
    data = dataset(given["data"], given["image_size"])
    attack, lacking = attacked.attackers(data, given["attack"], given["threat_model"])
    budget = {name: getattr(training, name) for name in ("train_size", "train_batch_size", "epochs", "delta")}
    asked = given | {"attack": (), "threat_model": ()} | attack | budget
    return {name: value for name, value in asked.items() if value != ()}, lacking  # () is the usual


def _make_way(home: Path) -> None:
    """Removes what `decide` without `--run` left in the folder: a run begins in an empty one."""
    there = {entry.name for entry in home.iterdir()} if home.is_dir() else set()
    if there <= set(NAMES):
        with refused_as_sentence(home):
            for name in there:
                (home / name).unlink()

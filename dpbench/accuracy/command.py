"""`--utility`: what the defences of a sweep cost, on CIFAR-10."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from rich.console import Console

from dpbench.accuracy import data, session, table
from dpbench.accuracy.networks import MODELS
from dpbench.accuracy.setting import settings
from dpbench.accuracy.trial import Trial
from dpbench.data import cifar10
from dpbench.sweep.options import Options

SEEDS = (0, 1, 2)


def trials(options: Options, device: str) -> list[Trial]:
    """The trainings of a sweep: both models under every defence and strength, three seeds of each.

    They are about CIFAR-10's training images, or a random subset where `train_size` is smaller, whatever
    images are attacked.

    Args:
        options: of a sweep, checked.
        device: `cpu` or `cuda`.

    Raises:
        InputError: for a `train_size` above CIFAR-10's 50,000, and for whatever can never be trained.
        AssetUnavailable: where CIFAR-10 is not here and no source answers.
    """
    images = data.checked(cifar10("train"), cifar10("test"))
    values = {name: value for name, value in options.items() if isinstance(value, tuple)}
    found = list(settings(options.defense, values))
    subsets = {setting.train_size: images.subset(setting.train_size) for setting in found}
    return [
        Trial(model, setting, seed, subsets[size], device)
        for model in MODELS.values()
        for size in subsets
        for setting in found
        if setting.train_size == size
        for seed in SEEDS
    ]


def note(planned: list[Trial]) -> str:
    """One line on what will be trained."""
    sizes = sorted({trial.setting.train_size for trial in planned})
    of = "CIFAR-10's 50,000 training images"
    if sizes != [50_000]:
        of = f"random subsets of {of}: {', '.join(f'{size:,}' for size in sizes)}"
    missing = sum(trial.kept() is None for trial in planned if session.possible(trial) is None)
    return f"Accuracy: {len(planned)} trainings on {of}, {missing} of them to be done."


def carry_out(planned: list[Trial], folder: Path, quiet: bool) -> pd.DataFrame:
    """Trains what is missing and writes `utility.csv`, also where it is interrupted.

    Args:
        planned: of `trials`.
        folder: of the run; it exists.
        quiet: show nothing.

    Returns:
        One row for each training, as `dpbench.accuracy.table.frame`.

    Raises:
        InputError: the disk is full, or a folder cannot be written; what was trained before is kept.
    """
    return session.table_of(planned, Console(stderr=True, emoji=False), quiet, folder)


def show(found: pd.DataFrame) -> None:
    """Print the mean accuracies and their spread."""
    table.show(found, Console(emoji=False))

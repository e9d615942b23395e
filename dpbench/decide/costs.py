"""What the choices cost in accuracy: models trained on CIFAR-10 with the noise of each."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from multiprocessing.connection import wait
from pathlib import Path

import pandas as pd
from rich.console import Console

from dpbench.accuracy import command, session
from dpbench.accuracy.trial import Trial
from dpbench.cell import registered
from dpbench.data import cifar10
from dpbench.decide.choices import Choice, Training
from dpbench.sweep.options import checked, defaults
from dpbench.system import process


def why_not(training: Training, data: str) -> str:
    """Why no accuracy is measured; empty where it is."""
    if data != "cifar10":
        return f"accuracy is measured on cifar10 only, not on {data}; for your own there is dpbench.utility"
    there = len(cifar10("train")[1])
    if training.train_size > there:
        return f"accuracy is measured on cifar10, whose {there:,} training images are fewer than yours"
    return ""


def accuracies(trials: Sequence[Trial], folder: Path, *, progress: bool) -> pd.DataFrame:
    """One row for each training, also in the folder's `utility.csv`.

    Those that the cache folder has are not trained again.

    Args:
        trials: of `planned`.
        folder: of the run; it exists.
        progress: show how far it is, on stderr.

    Raises:
        InputError: the disk is full, or a folder cannot be written.
    """
    return command.carry_out(list(trials), folder, not progress)


def planned(training: Training, chosen: Sequence[Choice], asked: Sequence[float], device: str) -> list[Trial]:
    """The trainings: without a defence and with the noise of each choice, three seeds of two models.

    Args:
        training: size, batch and length.
        chosen: at least one choice.
        asked: the epsilons that were asked for; the other choices go by their noise.
        device: `cpu` or `cuda`.
    """
    recipe = {
        name: (getattr(training, name),) for name in ("train_size", "train_batch_size", "epochs", "delta")
    }
    eps = tuple(choice.eps for choice in chosen if choice.eps in asked)
    noise = tuple(choice.noise_multiplier for choice in chosen if choice.eps not in asked)
    found: dict[str, Trial] = {}
    for name, values in (("eps", eps), ("noise_multiplier", noise)):
        if values:
            options = checked(defaults().replaced(defense=("dp",), **recipe, **{name: values}))
            found |= {trial.key: trial for trial in command.trials(options, device)}
    # a model's features are held, so its trainings stand next to each other
    return sorted(found.values(), key=lambda trial: trial.model.name)


@contextmanager
def beside(
    training: Training, chosen: Sequence[Choice], asked: Sequence[float], device: str
) -> Iterator[None]:
    """Within the block, another process does the trainings of `planned`, from the last one backwards.

    What it has done is kept in the cache folder. Arguments are those of `planned`.
    """
    noises = [replace(choice, curve=None) for choice in chosen]  # the curve is large, and plays no part
    context = multiprocessing.get_context("spawn")
    other = context.Process(target=_backwards, args=(training, noises, tuple(asked), device), daemon=True)
    other.start()
    try:
        yield
    finally:
        other.kill()
        other.join()


def _backwards(training: Training, chosen: Sequence[Choice], asked: Sequence[float], device: str) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole terminal; the other one decides
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with_the_other, daemon=True).start()
    process.configure()
    process.one_thread()
    registered.load()
    with suppress(Exception):  # the other process comes to the same training and says what is wrong
        session.table_of(
            planned(training, chosen, asked, device)[::-1], Console(stderr=True, emoji=False), True, None
        )


def _end_with_the_other() -> None:
    wait([multiprocessing.parent_process().sentinel])
    os._exit(1)

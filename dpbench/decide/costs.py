"""What the choices cost in accuracy: models trained on CIFAR-10 with the noise of each."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import wait

import pandas as pd

from dpbench.accuracy.utility import utility
from dpbench.data import cifar10
from dpbench.decide.choices import Choice, Training
from dpbench.system import process

MODELS = ("scattering-linear", "convnet-tanh")
"""The strong baseline first: its trainings are short once the features are there."""
SEEDS = (0, 1, 2)


def why_not(training: Training, data: str) -> str:
    """Why no accuracy is measured; empty where it is."""
    there = len(cifar10("train")[1]) if data == "cifar10" else 0
    if not there:
        return f"accuracy is measured on cifar10 only, not on {data}; for your own there is dpbench.utility"
    if training.train_size > there:
        return f"accuracy is measured on cifar10, whose {there:,} training images are fewer than yours"
    return ""


def accuracies(
    training: Training,
    chosen: Sequence[Choice],
    asked: Sequence[float],
    *,
    progress: bool,
    backwards: bool = False,
) -> pd.DataFrame:
    """One row for each training, without a defence and with the noise of each choice.

    Those of earlier calls are in the cache folder and are not trained again.

    Args:
        training: size, batch and length.
        chosen: noise multipliers.
        asked: the epsilons that were asked for; the other choices go by their noise.
        progress: show how far it is, on stderr.
        backwards: the last training first, for a process that works towards another one.

    Raises:
        InputError: the disk is full or the cache folder cannot be written.
    """
    train, test = cifar10("train"), cifar10("test")
    recipe = {name: getattr(training, name) for name in ("train_size", "train_batch_size", "epochs", "delta")}
    eps = [choice.eps for choice in chosen if choice.eps in asked]
    noise = [choice.noise_multiplier for choice in chosen if choice.eps not in asked]
    step = -1 if backwards else 1
    tables = []
    for model in MODELS:
        for values in ({"eps": eps[::step]}, {"noise_multiplier": noise[::step]}):
            if all(values.values()):
                tables.append(
                    utility(model, train, test, seeds=SEEDS[::step], progress=progress, **recipe, **values)
                )
    return pd.concat(tables, ignore_index=True).drop_duplicates(
        ["utility_model", "defense", "noise_multiplier", "utility_seed"], ignore_index=True
    )


@contextmanager
def beside(training: Training, chosen: Sequence[Choice], asked: Sequence[float]) -> Iterator[None]:
    """Within the block, another process trains, from the last training backwards; what it did is kept."""
    plain = [_Noise(choice) for choice in chosen]
    context = multiprocessing.get_context("spawn")
    other = context.Process(target=_trained, args=(training, plain, tuple(asked)), daemon=True)
    other.start()
    try:
        yield
    finally:
        other.kill()
        other.join()


class _Noise:
    """A choice without its curve, for another process."""

    def __init__(self, choice: Choice) -> None:
        self.eps, self.noise_multiplier = choice.eps, choice.noise_multiplier


def _trained(training: Training, chosen: Sequence[Choice], asked: Sequence[float]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole terminal; the other one decides
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with_the_other, daemon=True).start()
    process.configure()
    process.one_thread()
    with suppress(Exception):  # the other process comes to the same training and says what is wrong
        accuracies(training, chosen, asked, progress=False, backwards=True)


def _end_with_the_other() -> None:
    wait([multiprocessing.parent_process().sentinel])
    os._exit(1)

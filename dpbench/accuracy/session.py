"""Does the trainings that are missing, one after the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

import pandas as pd
from rich.console import Console

from dpbench.accuracy import table
from dpbench.accuracy.data import Split
from dpbench.accuracy.progress import Display
from dpbench.accuracy.train import Outcome, train
from dpbench.accuracy.trial import Row, Trial
from dpbench.protocol import InputError


def rows(trials: Sequence[Trial], console: Console, quiet: bool) -> Iterator[Row]:
    """One row for each training; those that the cache folder has are not done again.

    A training that fails is a row, too: `status` is `failed` and `error` says why; `skipped` where the
    defence cannot be trained.

    Args:
        trials: those of one model and one training set next to each other, as its features are held.
        console: where to show how far it is.
        quiet: show nothing.

    Raises:
        InputError: the disk is full or the cache folder cannot be written.
    """
    missing = [trial for trial in trials if possible(trial) is None and trial.kept() is None]
    held: dict[str, tuple[Split, Split]] = {}
    with Display(missing, console, quiet) as display:
        for trial in trials:
            row = trial.row()
            if (reason := possible(trial)) is not None:
                yield row | {"status": "skipped", "error": reason}
                continue
            found = trial.kept()
            if found is None:
                try:
                    found = asdict(_trained(trial, held, display))
                except Exception as error:  # of somebody's model or defence
                    row |= {"status": "failed", "error": _failure(error)}
                    display.finished(trial, row)
                    yield row
                    continue
                trial.keep(found)
                display.finished(trial, row | found)
            yield row | found | {"status": "ok", "error": None}


def table_of(trials: Sequence[Trial], console: Console, quiet: bool, folder: Path | None) -> pd.DataFrame:
    """The table of `rows`, written into `folder`, where there is one, even if it is interrupted.

    Raises:
        InputError: the disk is full, or a folder cannot be written; what was trained before is kept.
    """
    found: list[Row] = []
    try:
        for row in rows(trials, console, quiet):
            found.append(row)
    finally:
        if folder is not None and found:
            table.write(folder, table.frame(found))
    return table.frame(found)


def possible(trial: Trial) -> str | None:
    """Why the training cannot even begin; None where it can."""
    try:
        _ = trial.key
    except InputError as error:
        return str(error)
    return None


def _trained(trial: Trial, held: dict[str, tuple[Split, Split]], display: Display) -> Outcome:
    images, model, setting = trial.images, trial.model, trial.setting
    name = f"{model.name} {images.digest}"
    if name not in held:
        held.clear()  # features of 50,000 images take 1.6 GB
        held[name] = _features(trial, display)
    data = held[name]
    shape = tuple(data[0][0].shape[1:])
    return train(
        partial(model.build, shape, images.num_classes),
        setting.chain,
        data,
        sampling=setting.sampling,
        batch_size=setting.train_batch_size,
        learning_rate=trial.learning_rate,
        seed=trial.seed,
        device=trial.device,
        tell=partial(display.step, trial),
    )


def _failure(error: Exception) -> str:
    if isinstance(error, InputError):
        return str(error)
    reason = (str(error).splitlines() or [type(error).__name__])[0][:160].rstrip(".")
    return (
        f"The model fails in training ({reason}): use one that takes batches of every size, as sampling "
        "draws them; batch norm, say, takes none of one image."
    )


def _features(trial: Trial, display: Display) -> tuple[Split, Split]:
    model, both = trial.model, (trial.images.train, trial.images.test)
    if model.features is None:
        return both
    tell = partial(display.features, model.name)
    return tuple((model.features(images, tell), labels) for images, labels in both)

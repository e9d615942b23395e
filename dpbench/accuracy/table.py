"""`utility.csv`: one row for each training, and its summary over seeds."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pandas as pd
from rich.console import Console

from dpbench.accuracy.setting import RECIPE
from dpbench.accuracy.trial import Row
from dpbench.cell import parts
from dpbench.privacy.rounding import up
from dpbench.system.atomic import written
from dpbench.system.layout import Line, lay_out
from dpbench.system.output import plain

NAME = "utility.csv"
FIRST = ("defense", "eps", "noise_multiplier", "max_grad_norm")
LAST = (
    *("delta", "accountant", "sample_rate", "steps", *RECIPE, "utility_model", "learning_rate"),
    *("utility_seed", "accuracy", "test_size", "chance", "seconds", "status", "error"),
)
"""Columns before and after the other parameters of the defences."""
_OF_A_TRAINING = ("utility_seed", "accuracy", "seconds", "status", "error")


def frame(rows: Iterable[Row]) -> pd.DataFrame:
    """One row for each training.

    Columns: `defense`, the parameters of the defences, `delta`, `accountant`, `sample_rate` (q), `steps` (T),
    `train_size`, `train_batch_size`, `epochs`, `utility_model`, `learning_rate`, `utility_seed`, `accuracy`
    (share of the test set, 0 to 1), `test_size`, `chance` (share of its commonest class), `seconds`, `status`
    (`ok`, `failed` or `skipped`) and `error`.
    """
    table = pd.DataFrame(list(rows))
    others = [name for name in table if name not in (*FIRST, *LAST)]
    return table.reindex(columns=[*FIRST, *others, *LAST])


def write(folder: Path, table: pd.DataFrame) -> Path:
    """`table` as `utility.csv` in `folder`, wholly or not at all.

    Raises:
        InputError: the disk is full or the folder cannot be written.
    """
    return written(folder / NAME, lambda path: table.to_csv(path, index=False))


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """One row for each model, defence and training: `seeds`, `mean`, `min` and `max` of the accuracy.

    Args:
        table: of `frame`; trainings without an accuracy do not count.
    """
    conditions = [name for name in table if name not in _OF_A_TRAINING]
    groups = table[table["accuracy"].notna()].groupby(conditions, dropna=False, sort=False)["accuracy"]
    found = groups.agg(["count", "mean", "min", "max"]).rename(columns={"count": "seeds"})
    return found.reset_index()


def show(table: pd.DataFrame, console: Console) -> None:
    """Print the summary: per defence and model, the mean accuracy over seeds, the least and the most.

    Args:
        table: of `frame`.
        console: where to print it.
    """
    found = summary(table)
    if found.empty:
        return
    settings = [n for n in found if n not in (*LAST, "seeds", "mean", "min", "max", "defense", "eps")]
    shown = [n for n in settings if _varies(found, n)] + [n for n in RECIPE if found[n].nunique() > 1]
    titles = [parts.symbols().get(name, name).replace("_", " ") for name in ("eps", *shown)]
    lines = []
    for model, rows in found.groupby("utility_model", sort=False):
        lines += [Line(""), Line(plain(str(model)), style="bold")]
        for row in rows.to_dict("records"):
            cells = [_word(row[name], name) for name in ("eps", *shown)]
            cells += [f"{row[name]:.1%}" for name in ("mean", "min", "max")]
            lines.append(Line(plain(str(row["defense"])), (*cells, str(row["seeds"])), indent=2))
    console.print("Accuracy on the test set: mean, least and most over seeds.", highlight=False)
    for part in lay_out([*titles, "mean", "least", "most", "seeds"], lines, console.width):
        console.print(*part, "", sep="\n")
    for reason in dict.fromkeys(table.loc[table["accuracy"].isna(), "error"].dropna()):
        console.print(plain(f"Without accuracy: {reason}"), markup=False, highlight=False, soft_wrap=True)


def _varies(found: pd.DataFrame, name: str) -> bool:
    """Whether a setting differs within one defence, so that rows cannot be told apart without it."""
    return bool((found.groupby("defense", dropna=False)[name].nunique(dropna=False) > 1).any())


def _word(value: object, name: str) -> str:
    if value is None or value != value or value is pd.NA:
        return ""
    if isinstance(value, float):
        # epsilon and noise are rounded up, so that they promise no more than they hold
        return up(value, 4) if name in ("eps", "noise_multiplier") else f"{value:.4g}"
    return plain(str(value))

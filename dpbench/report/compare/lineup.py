"""Which rows of several runs are of one setting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from dpbench.report.compare.runs import Run
from dpbench.report.compare.settings import LABELS, canonical, of_attacks, really_run
from dpbench.report.naming import EMPTY
from dpbench.store.columns import columns

_MOST = 3
"""Differences that are named where a setting has no partner."""


@dataclass(frozen=True)
class Setting:
    """One setting.

    Attributes:
        rows: of each run that has it, by the run's letter; the run that the others are compared with first.
        differs: what the attacks differ in, such as `preset: tuned | paper`, a text for each column.
    """

    rows: dict[str, pd.DataFrame]
    differs: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Alone:
    """A setting of one run that has no partner.

    Attributes:
        run: the run's letter.
        rows: its rows.
        nearest: what the most similar setting of another run has otherwise.
        distance: the more, the less similar it is.
    """

    run: str
    rows: pd.DataFrame
    nearest: str
    distance: int


def line_up(runs: Sequence[Run]) -> tuple[list[Setting], list[Alone]]:
    """Find the settings that the first run has in common with the others.

    Two runs share a setting if they agree in all columns of `really_run`. Attacks may differ in what they do,
    where each run has one variant of it: then that is what is compared, and `Setting.differs` names it. A
    column that varies within one of the runs has to be the same.

    Returns:
        The settings of two runs or more, and those of one run alone.
    """
    tables = [run.table.assign(_run=run.letter) for run in runs]
    every = pd.concat(tables, ignore_index=True)
    texts = canonical(every)
    codes = texts.apply(lambda column: pd.factorize(column)[0]).astype(int)
    really = [name for name in (*really_run(), *LABELS) if name in codes]
    free = [name for name in of_attacks() if name in codes]
    group = codes.groupby(really, sort=False).ngroup()
    variant = codes.groupby([*really, *free], sort=False).ngroup()
    first = runs[0].letter
    found: dict[int, dict[str, pd.Index]] = {}
    for number in group[every["_run"] == first].unique():
        inside = codes[group == number]
        ours = inside[every.loc[inside.index, "_run"] == first]
        for run in runs[1:]:
            theirs = inside[every.loc[inside.index, "_run"] == run.letter]
            for a, b in _partners(ours, theirs, free):
                found.setdefault(int(variant[a[0]]), {first: a})[run.letter] = b
    settings = [_setting(every, texts, free, indices) for indices in found.values()]
    used = {index for indices in found.values() for each in indices.values() for index in each}
    alone = []
    for _, rows in every[~every.index.isin(used)].groupby([every["_run"], variant], sort=False):
        run = rows["_run"].iloc[0]
        others = texts[every["_run"] != run] if run == first else texts[every["_run"] == first]
        distance, nearest = _nearest(texts.loc[rows.index[0]], others)
        alone.append(Alone(run, rows, nearest, distance))
    return settings, alone


def _partners(a: pd.DataFrame, b: pd.DataFrame, free: list[str]) -> list[tuple[pd.Index, pd.Index]]:
    """Rows of two runs, by what varies in either: first by the attack, then by its parameters."""
    parts = _split(a, b, ["attack"])
    return [(x.index, y.index) for part in parts for x, y in _split(*part, free)]


def _split(a: pd.DataFrame, b: pd.DataFrame, names: list[str]) -> list[tuple[pd.DataFrame, pd.DataFrame]]:
    if a.empty or b.empty:
        return []
    varying = [name for name in names if a[name].nunique() > 1 or b[name].nunique() > 1]
    if not varying:
        return [(a, b)]
    others = dict(list(b.groupby(varying, sort=False)))
    return [(rows, others[key]) for key, rows in a.groupby(varying, sort=False) if key in others]


def _setting(
    every: pd.DataFrame, texts: pd.DataFrame, free: list[str], indices: dict[str, pd.Index]
) -> Setting:
    heads = texts.loc[[index[0] for index in indices.values()]]
    differing = [name for name in free if heads[name].nunique(dropna=False) > 1]
    said = tuple((name, " | ".join(heads[name].fillna(EMPTY))) for name in differing)
    return Setting({letter: every.loc[index] for letter, index in indices.items()}, said)


def _nearest(own: pd.Series, others: pd.DataFrame) -> tuple[int, str]:
    """In how many columns the most similar of the settings `others` differs, and in which."""
    others, own = others.drop_duplicates().fillna(EMPTY), own.fillna(EMPTY)
    unequal = others.ne(own)
    # what has another name has other parameters, too: that is one difference, not ten
    weights = pd.Series(1, index=own.index).mask(own.index.isin(("attack", "defense")), len(own))
    distance = (unequal * weights).sum(axis=1) + _apart(others, own)
    best = distance.idxmin()
    differing = [name for name in own.index if unequal.at[best, name]]
    role = {name: column.role for name, column in columns().items()}
    for part in ("defense", "attack"):
        if part in differing:
            differing = [name for name in differing if name == part or role[name] != role[part]]
    said = [f"{name.replace('_', ' ')} {own[name]} | {others.at[best, name]}" for name in differing]
    more = f" and {len(said) - _MOST} more" if len(said) > _MOST else ""
    return int(distance[best]), ", ".join(said[:_MOST]) + more


def _apart(others: pd.DataFrame, own: pd.Series) -> pd.Series:
    """How far the noise is, from 0 to below 1: of many sigmas the next one is named."""
    if "noise_multiplier" not in own or own["noise_multiplier"] == EMPTY:
        return pd.Series(0.0, index=others.index)
    sigma, theirs = float(own["noise_multiplier"]), pd.to_numeric(others["noise_multiplier"], errors="coerce")
    return ((theirs - sigma).abs() / (theirs + sigma + 1e-300)).fillna(1.0) * 0.99

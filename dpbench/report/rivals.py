"""The floors of each image one by one: the guesses with which an attack is compared."""

from __future__ import annotations

import pandas as pd

from dpbench.report.rows import ended_well, is_floor
from dpbench.store.columns import conditions
from dpbench.system.once import once

ORACLE = "constant-image"
"""A floor that is made from the original itself, so that nobody could guess it: no rival, but a yardstick in
the columns `psnr_floor` and `lpips_floor`."""
BEST = "the best of all"
"""What stands in where a table does not hold the floors of its rows; `ORACLE` may be in it."""
METRICS = ("psnr", "lpips")
CHOICES = ("identified", "iip")
_TOLD = ("labels", "bn_stats")
_IMAGE = ["data", "label_draw", "batch_size", "batch_seed", "image"]


@once
def rivals(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """What each floor but `ORACLE` reaches on the images of the attacks' rows.

    Floors belong to attacks by roles: the same image of the same batch, and for an attack's own floors the
    same settings of the attack. A column in which floors do not differ is no part of that: floors are made
    without a defence, so that what belongs to the defence alone is the same, or empty, in all of them.

    Args:
        table: results of attacks and floors, columns of `dpbench.store.columns`, with an index of its own.

    Returns:
        By the floor's name the columns `psnr`, `lpips`, `identified` and `iip` (shares of 1, NaN where there
        is no gallery), by the index of the rows that it is a floor of. For rows whose floors the table does
        not hold, `BEST` stands in, as their columns `psnr_floor` and `lpips_floor` have it.
    """
    settings = conditions("batch", "attack")
    # rows are taken out of few columns; one that is the same in all rows tells no floors apart
    varying = [name for name in settings if table[name].nunique(dropna=False) > 1]
    needed = ("attack", "floor", "floor_of", "status", "attack_seed", *_TOLD, *_IMAGE)
    needed += (*METRICS, *(f"{metric}_floor" for metric in METRICS), *CHOICES)
    table = table[list(dict.fromkeys((*needed, *varying)))]
    floors = table[is_floor(table) & ended_well(table) & (table["floor"] != ORACLE)]
    attacked = table[~is_floor(table)]
    found: dict[str, list[pd.DataFrame]] = {}
    for (name, of), part in floors.groupby([floors["floor"], floors["floor_of"].fillna("")]):
        rows = attacked[attacked["attack"] == of] if of else attacked
        found.setdefault(name, []).append(_joined(rows, part, own=bool(of)))
    joined = {name: pd.concat(parts).dropna(how="all") for name, parts in found.items()}
    known = {index for part in joined.values() for index in part.index}
    rest = attacked[~attacked.index.isin(known)]
    best = rest[[f"{metric}_floor" for metric in METRICS]].set_axis(list(METRICS), axis=1)
    return joined | {BEST: best.dropna(how="all").reindex(columns=[*METRICS, *CHOICES])}


def _joined(rows: pd.DataFrame, floors: pd.DataFrame, *, own: bool) -> pd.DataFrame:
    names = (*conditions("batch"), *(conditions("attack") if own else ()))
    leave_out = {"attack", "floor", "floor_of", *_IMAGE}
    names = [name for name in names if name in floors and name not in leave_out]
    differing = [name for name in names if floors[name].nunique(dropna=False) > 1]
    if own:  # what the attack was told: the floor of another setting is none
        differing += [c for c in _TOLD if c not in differing and floors[c].notna().all()]
    on = [*_IMAGE, *differing, *(["attack_seed"] if own else [])]
    compared = [*METRICS, *CHOICES]
    numbers = floors[[*on, *compared]].astype(dict.fromkeys(CHOICES, "Float64"))
    values = numbers.groupby(on, dropna=False)[compared].mean().reset_index()
    joined = rows[on].merge(values, on=on, how="left")[compared]
    return joined.astype("Float64").astype(float).set_axis(rows.index)

"""Sets beside every result what could be had without the gradient of its image."""

from __future__ import annotations

import pandas as pd

from dpbench.store.columns import columns


def attach_floors(table: pd.DataFrame) -> pd.DataFrame:
    """Fill the floor columns (`psnr_floor`, ...): the closest that any floor of the same image came.

    The floors of an attack's row are those of its batch (mean and constant image), and the noise and the
    start of the same attack with the same parameters and seed: never those of another attack, so that a row's
    floor does not depend on what else the sweep held. Floor rows keep the columns empty.

    Args:
        table: per-image results, columns of `dpbench.store.columns`.

    Returns:
        A copy with the floor columns filled.
    """
    known = columns()
    extremes = {
        name: {"higher": "max", "lower": "min"}[column.better]
        for name, column in known.items()
        if f"{name}_floor" in known and name in table
    }
    same_image = [name for name, c in known.items() if c.role == "batch" and name in table]
    # an attack's floors are of the undefended gradient, where what only a defence brings plays no role
    same_search = [
        *same_image,
        *(n for n, c in known.items() if c.role == "attack" and c.undefended and n in table),
    ]
    same_search = [name for name in same_search if name not in ("floor", "floor_of")]
    is_floor = table["floor"].notna()
    usable = table[is_floor & (table["status"] == "ok")]
    of_a_batch = usable[usable["floor_of"].isna()]
    of_an_attack = usable[usable["floor_of"].notna()].assign(attack=lambda found: found["floor_of"])
    rows = table[~is_floor]
    best = [
        _best(rows, of_a_batch, same_image, extremes),
        _best(rows, of_an_attack, same_search, extremes),
    ]
    table = table.copy()
    for metric, extreme in extremes.items():
        found = pd.concat([each[metric] for each in best], axis=1)
        table.loc[~is_floor, f"{metric}_floor"] = found.agg(extreme, axis=1)
    return table


def _best(
    rows: pd.DataFrame, floors: pd.DataFrame, same: list[str], extremes: dict[str, str]
) -> pd.DataFrame:
    """For each row the extremes of the floors that have the same values in the columns `same`.

    Rows and floors are numbered together, as a join does not take missing values for equal where a column of
    whole numbers has others beside them.
    """
    number = pd.concat([rows[same], floors[same]]).groupby(same, dropna=False).ngroup().to_numpy()
    best = floors[[*extremes]].groupby(number[len(rows) :]).agg(extremes)
    return best.reindex(number[: len(rows)]).set_axis(rows.index)

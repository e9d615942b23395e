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
    of_a_batch = of_a_batch.groupby(same_image, dropna=False)[[*extremes]].agg(extremes)
    of_an_attack = usable[usable["floor_of"].notna()].assign(attack=lambda found: found["floor_of"])
    of_an_attack = of_an_attack.groupby(same_search, dropna=False)[[*extremes]].agg(extremes)
    rows = table.loc[~is_floor, same_search]
    table = table.copy()
    for metric, extreme in extremes.items():
        found = pd.concat(
            [
                rows.join(floors[metric].rename(name), on=floors.index.names)[name]
                for name, floors in (("_of_batch", of_a_batch), ("_of_attack", of_an_attack))
            ],
            axis=1,
        )
        table.loc[~is_floor, f"{metric}_floor"] = found.agg(extreme, axis=1)
    return table

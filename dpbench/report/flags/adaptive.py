"""An attack that ignores the defence gets nearer than the same attack made for it."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from dpbench.report.evidence import originals, over_floor
from dpbench.report.flags.flag import MARGIN_DB, Flag, Results, keys, listed
from dpbench.report.naming import number
from dpbench.report.rows import is_defended
from dpbench.store.columns import conditions
from dpbench.system.words import counted

KIND = "non-adaptive beats adaptive"


def adaptive(results: Results) -> Iterator[Flag]:
    """Pairs both on the same images of the same releases; see `MARGIN_DB`."""
    rows = results.rebuilt[is_defended(results.rebuilt) & results.rebuilt["adaptive"].notna()]
    same = rows["adaptive"].astype(bool)
    if same.all() or not same.any():
        return
    both = paired(rows[same], rows[~same])
    gained = over_floor(both["psnr_other"], both["psnr"])
    for attack, part in rows.loc[both.index].groupby("attack", sort=False):
        said, beside = [], []
        for line, own in results.settings(part):
            gains = gained.loc[own.index].groupby(originals(own)).median()
            if gains.median() >= MARGIN_DB:
                gain = number(gains.median(), ".1f")
                said.append(f"{gain} dB {results.place(line)} ({counted(len(gains), 'image')})")
                beside.append(own)
        if said:
            yield Flag(
                KIND,
                f"{attack} is nearer the originals without its answer to the defence than with it, by the "
                f"median of paired PSNR: {listed(said)}; the adaptive rows understate what it reaches.",
                keys(pd.concat(beside)),
            )


def paired(adaptive: pd.DataFrame, other: pd.DataFrame) -> pd.DataFrame:
    """PSNR and LPIPS of rows of `adaptive` that have a partner in `other`, by their index.

    Those of the partner are `psnr_other` and `lpips_other`.
    """
    on = [name for name in conditions() if name != "adaptive"] + ["batch_seed", "attack_seed", "image"]
    measures = ["psnr", "lpips"]
    left = adaptive[[*on, *measures]].assign(_index=adaptive.index)
    both = left.merge(other[[*on, *measures]], on=on, suffixes=("", "_other")).set_index("_index")
    return both[[name + end for name in measures for end in ("", "_other")]]

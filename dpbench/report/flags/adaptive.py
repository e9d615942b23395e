"""An attack that ignores the defence gets nearer than the same attack made for it."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from dpbench.report.evidence import originals, over_floor
from dpbench.report.flags.flag import MARGIN_DB, Flag, Results, count, keys, listed
from dpbench.report.rows import is_defended
from dpbench.store.columns import conditions

KIND = "non-adaptive beats adaptive"


def adaptive(results: Results) -> Iterator[Flag]:
    """Pairs both on the same images of the same releases; see `MARGIN_DB`."""
    rows = results.rebuilt[is_defended(results.rebuilt) & results.rebuilt["adaptive"].notna()]
    same = rows["adaptive"].astype(bool)
    paired = _paired(rows[same], rows[~same])
    for attack, part in paired.groupby("attack", sort=False):
        said, beside = [], []
        for line, own in results.settings(rows.loc[part["_index"]]):
            gains = part.set_index("_index")["_gain"].loc[own.index].groupby(originals(own)).median()
            if gains.median() >= MARGIN_DB:
                said.append(f"{gains.median():.1f} dB {results.place(line)} ({count(len(gains), 'image')})")
                beside.append(own)
        if said:
            yield Flag(
                KIND,
                f"{attack} is nearer the originals without its answer to the defence than with it, by the "
                f"median of paired PSNR: {listed(said)}; the adaptive rows understate what it reaches.",
                keys(pd.concat(beside)),
            )


def _paired(adaptive: pd.DataFrame, other: pd.DataFrame) -> pd.DataFrame:
    """Rows of `adaptive` that have a partner: `_index` of each, and `_gain`, the partner's PSNR over its."""
    on = [name for name in conditions() if name != "adaptive"] + ["batch_seed", "attack_seed", "image"]
    left = adaptive[[*on, "psnr"]].assign(_index=adaptive.index)
    both = left.merge(other[[*on, "psnr"]], on=on, suffixes=("", "_other"))
    return both.assign(_gain=over_floor(both["psnr_other"], both["psnr"]))

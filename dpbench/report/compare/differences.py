"""By how much two runs differ on the images that both attacked."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from dpbench.report.compare.intervals import alike, bootstrap, groups, mcnemar, share_difference
from dpbench.report.compare.runs import Run
from dpbench.report.evidence import originals

CEILING = 60.0
"""PSNR in dB that counts at most: above it an image differs from its original by less than its 8 bits."""
MEASURES = {"psnr": None, "lpips": "lpips_net", "success": "candidates"}
"""What has a mean difference, and the column in which both runs have to agree for it."""
_PAIR = ["batch_seed", "attack_seed", "image"]
LENGTHS_ALIKE = 0.01
"""By what share the lengths of one gradient may differ; machines and engines differ by far less."""
_SAME = ["original_index", "label"]
_BATCH = ["data", "label_draw", "batch_size", "batch_seed"]
_GALLERY = ["gallery_size", "gallery_labels"]
_NEEDED = [*_BATCH, "attack_seed", "image", *_SAME, "copy_of", *_GALLERY, "identified", "key", "eps_release"]
_NEEDED += ["defense", "release_norm"]
_NEEDED += [*MEASURES, *(name for name in MEASURES.values() if name)]


@dataclass(frozen=True)
class Difference:
    """The second run less the first, by one measure.

    Attributes:
        measure: `psnr` (dB), `lpips`, `identified` (share of photographs) or `success` (the informed
            attacker's share of right answers).
        pairs: how many; of `identified` a photograph counts once.
        groups: batches that share no photograph; what is drawn from for the interval of a mean.
        value: the mean difference.
        low: lower end of its 95 % interval; NaN where there are too few groups.
        high: upper end.
        p: McNemar's, of `identified`: over groups that one of the runs got more photographs of; else NaN.
    """

    measure: str
    pairs: int
    groups: int
    value: float
    low: float
    high: float
    p: float = math.nan


@dataclass(frozen=True)
class Paired:
    """What two runs have in common in one setting.

    Attributes:
        pairs: images that both attacked.
        photographs: different ones among them.
        groups: batches that share no photograph.
        others: pairs of the same seed and place that hold another photograph, and so are none.
        differences: by measure.
        other_gradients: without a defence some batch had another gradient, so that the models are not the
            same one, or the losses, or, where cells keep no pictures, the data.
    """

    pairs: int
    photographs: int
    groups: int
    others: int
    differences: dict[str, Difference]
    other_gradients: bool


def paired(first: Run, second: Run, ours: pd.DataFrame, theirs: pd.DataFrame) -> Paired:
    """Compare two runs on one setting.

    Pairs have the same batch seed, attack seed and place in the batch, and the same photograph: the same
    place in the data set, the same label and, where both runs kept their cells, the same pixels. Rows that
    differ in none of this (two budgets that come to one noise, say) are paired in order.

    Args:
        first: the run that is subtracted.
        second: the other one.
        ours: rows of the first, of one setting.
        theirs: rows of the second.
    """
    a, b = (_counted(rows) for rows in (ours, theirs))
    both = a.merge(b, on=[*_PAIR, "_copy"], suffixes=("", "_b"))
    same = pd.Series(True, index=both.index)
    for name in _SAME:
        same &= (both[name] == both[f"{name}_b"]).fillna(False) | (
            both[name].isna() & both[f"{name}_b"].isna()
        )
    same &= _same_pixels(first, second, both)
    others, both = int((~same).sum()), both[same].reset_index(drop=True)
    photograph = originals(both)
    group = groups(both["batch_seed"], photograph)
    found = [_mean(name, must, both, group) for name, must in MEASURES.items()]
    found.append(_identified(both, photograph, group))
    differences = {each.measure: each for each in found if each is not None}
    length, other = both["release_norm"], both["release_norm_b"]
    apart = (both["defense"] == "none") & ((length - other).abs() > LENGTHS_ALIKE * length.abs())
    groups_in_all = len(np.unique(group))
    return Paired(len(both), photograph.nunique(), groups_in_all, others, differences, bool(apart.any()))


def _counted(rows: pd.DataFrame) -> pd.DataFrame:
    rows = rows[_NEEDED].sort_values([*_PAIR, "eps_release", "key"], kind="stable")
    return rows.assign(_copy=rows.groupby(_PAIR, dropna=False).cumcount())


def _same_pixels(first: Run, second: Run, both: pd.DataFrame) -> pd.Series:
    """Which pairs are of the same pixels, as far as cells were kept."""
    found = pd.Series(True, index=both.index)
    if not (first.has_cells and second.has_cells):
        return found
    for batch, rows in both[[*_BATCH, "image", "key", "key_b"]].groupby(_BATCH, dropna=False):
        a, b = (run.photographs(batch, rows[key].iloc[0]) for run, key in ((first, "key"), (second, "key_b")))
        if a and b:
            found[rows.index] = [i < min(len(a), len(b)) and a[i] == b[i] for i in rows["image"]]
    return found


def _mean(name: str, must: str | None, both: pd.DataFrame, group: np.ndarray) -> Difference | None:
    a, b = both[name].to_numpy(float), both[f"{name}_b"].to_numpy(float)
    if name == "psnr":
        a, b = np.minimum(a, CEILING), np.minimum(b, CEILING)
    usable = ~(np.isnan(a) | np.isnan(b))
    if must is not None:
        usable &= (both[must] == both[f"{must}_b"]).fillna(False).to_numpy(bool)
    if not usable.any():
        return None
    difference, group = (b - a)[usable], group[usable]
    interval = bootstrap(difference, group)
    return Difference(name, len(difference), len(np.unique(group)), float(difference.mean()), *interval)


def _identified(both: pd.DataFrame, photograph: pd.Series, group: np.ndarray) -> Difference | None:
    asked = both["identified"].notna() & both["identified_b"].notna()
    for name in _GALLERY:
        same = (both[name] == both[f"{name}_b"]).fillna(False)
        asked &= same | (both[name].isna() & both[f"{name}_b"].isna())
    asked = asked.to_numpy(bool)
    once = ~photograph[asked].duplicated().to_numpy()  # the same photograph is no new evidence
    a, b = (both.loc[asked, name][once].to_numpy(bool) for name in ("identified", "identified_b"))
    if not len(a):
        return None
    group, change = group[asked][once], b.astype(float) - a
    per_group = pd.Series(change).groupby(group).sum()  # of single photographs the change itself
    only_a, only_b = int((per_group < 0).sum()), int((per_group > 0).sum())
    value, p = float(change.mean()), mcnemar(only_a, only_b)
    if len(per_group) == len(change):
        interval = share_difference(only_a, only_b, len(change))
    else:
        interval = bootstrap(change, group)
        if interval[0] == interval[1]:
            interval = alike(value, len(per_group))
    return Difference("identified", len(a), len(per_group), value, *interval, p=p)

"""Per-image rows to one row per condition."""

from __future__ import annotations

import pandas as pd

from dpbench.privacy.intervals import clopper_pearson
from dpbench.report.labels import ablation_order, is_defended, is_floor
from dpbench.store import schema
from dpbench.store.columns import conditions as condition_columns

_STATISTICS = {
    "psnr": ("mean", "median", "max", "q10", "q90"),
    "ssim": ("mean", "median", "max"),
    "lpips": ("mean", "median", "min", "q10", "q90"),
    "fft2d": ("mean", "median", "min"),
    "psnr_floor": ("median",),
    "lpips_floor": ("median",),
    "psnr_over_floor": ("median", "max"),
    "lpips_to_floor": ("median", "min"),
}


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Summarise results over images, batch seeds and attack seeds.

    Rows that differ in a condition (`Column.condition` of the schema) are never put together. The worst
    case for privacy is `psnr_max`, `ssim_max`, `lpips_min` and `psnr_over_floor_max`.

    Args:
        table: per-image results, columns of `dpbench.store.columns`.

    Returns:
        One row per condition; batch sizes in order, in each the floors first, then the undefended, then the
        defended rows, budgets ascending. Beside the conditions: `images` and `cells` (rows and cells that
        ended well), `failed` (cells that did not), per metric its mean, median, worst and quantiles,
        `psnr_over_floor_*` (dB above the best floor of the same image), `lpips_to_floor_*` (ratio to its
        lowest floor; below 1 is more alike than any floor), `label_accuracy` (0 to 1), `seconds` and
        `compile_seconds` (means over cells), `identified_share` (of the images, in a gallery of
        `gallery_size`), `iip` (likewise, by a network's features; `iip_chance` is a blind guess's), and of
        the informed attacker `success` with its 95 % interval `success_low` to `success_high`,
        `success_bound` and `membership`, over all trials.
    """
    table = schema.conform(table)
    well = table["status"].fillna("ok") == "ok"
    # a copy of a flat image equals its floor: 0 dB and ratio 1, not the missing values of inf - inf and 0 / 0
    over, ratio = table["psnr"] - table["psnr_floor"], table["lpips"] / table["lpips_floor"]
    table["psnr_over_floor"] = over.mask(table["psnr"] == table["psnr_floor"], 0.0)
    table["lpips_to_floor"] = ratio.mask(table["lpips"] == table["lpips_floor"], 1.0)
    conditions = list(condition_columns())
    # one integer per condition: grouping by 35 columns with missing values once, not once per statistic
    group = table.groupby(conditions, dropna=False, sort=False).ngroup()
    measured, by = table[well], group[well]
    columns = {
        "images": by.groupby(by).size(),
        "cells": measured["key"].groupby(by).nunique(),
        "failed": table.loc[~well, "key"].groupby(group[~well]).nunique(),
    }
    for metric, statistics in _STATISTICS.items():
        values = measured[metric].groupby(by)
        for statistic in statistics:
            columns[f"{metric}_{statistic}"] = _statistic(values, statistic)
    columns["label_accuracy"] = (
        measured["label_correct"].astype("Float64").astype("float64").groupby(by).mean()
    )
    columns["identified_share"] = (
        measured["identified"].astype("Float64").astype("float64").groupby(by).mean()
    )
    for name in ("gallery_size", "iip", "iip_chance", "success_bound", "membership"):
        columns[name] = measured[name].astype("Float64").astype("float64").groupby(by).mean()
    picked = measured[measured["success"].notna()]
    tried = [(group, *pooled(rows)) for group, rows in picked.groupby(by[picked.index])]
    columns["success"] = pd.Series({i: right / trials for i, right, trials in tried}, dtype="float64")
    for name, end in (("success_low", 0), ("success_high", 1)):
        columns[name] = pd.Series(
            {i: clopper_pearson(right, trials)[end] for i, right, trials in tried}, dtype="float64"
        )
    per_cell = measured.drop_duplicates("key")
    for times in ("seconds", "compile_seconds"):
        columns[times] = per_cell[times].groupby(by[per_cell.index]).mean()
    heads = table.loc[~group.duplicated(), conditions].set_axis(group[~group.duplicated()])
    result = heads.join(pd.DataFrame(columns))
    counts = ["images", "cells", "failed"]
    result[counts] = result[counts].fillna(0).astype("Int64")
    return _ordered(result)


def pooled(rows: pd.DataFrame) -> tuple[int, int]:
    """Successes and trials: of the informed attacker, or else images identified in a gallery and images."""
    informed = rows[rows["success"].notna()]
    if len(informed):
        return round(float((informed["success"] * informed["trials"]).sum())), int(informed["trials"].sum())
    asked = rows["identified"].dropna()
    return int(asked.sum()), len(asked)


def _statistic(values: pd.api.typing.SeriesGroupBy, statistic: str) -> pd.Series:
    if statistic.startswith("q"):
        return values.quantile(int(statistic[1:]) / 100)
    return getattr(values, statistic)()


def _ordered(result: pd.DataFrame) -> pd.DataFrame:
    result = result.assign(
        _defended=is_defended(result),
        _attack=~is_floor(result),
        _private=result["eps_release"].notna(),
        _terms=ablation_order(result),
        _budget=result["eps_release"].map(
            lambda eps: float(f"{eps:.6g}")
        ),  # computed: equal but for rounding
    )
    order = ["batch_size", "model", "norm", "victim", "_attack", "_defended", "_private", "defense"]
    order += [
        "prune_ratio",
        "noise_std",
        "max_grad_norm",
        "eps",
        "_budget",
        "releases",
        "inclusion",
        "attack",
        "floor_of",
        "_terms",
        "adaptive",
    ]
    ordered = result.sort_values(order, kind="stable", ignore_index=True)
    return ordered.drop(columns=["_defended", "_attack", "_private", "_budget", "_terms"])

"""Per-image rows to one row per condition."""

from __future__ import annotations

import pandas as pd

from dpbench.privacy.intervals import clopper_pearson
from dpbench.report.evidence import over_floor, to_floor
from dpbench.report.rows import ended_well, is_of_attack, ordered
from dpbench.store import schema
from dpbench.store.columns import Column, columns
from dpbench.store.columns import conditions as condition_columns
from dpbench.system.once import once

_QUANTILES = ("psnr", "lpips")
"""Metrics whose 10 % and 90 % quantiles are told, too."""
_AGAINST_FLOORS = {
    "psnr_floor": ("median",),
    "lpips_floor": ("median",),
    "psnr_over_floor": ("median", "max"),
    "lpips_to_floor": ("median", "min"),
}


def metrics() -> dict[str, Column]:
    """The columns that measure how near an image is to its original, a third party's among them."""
    return {name: c for name, c in columns().items() if c.better and c.dtype == "float64"}


def worst(metric: Column) -> str:
    """The worst case for privacy: `max` or `min`."""
    return "max" if metric.better == "higher" else "min"


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Summarise results over images, batch seeds and attack seeds.

    Rows that differ in a condition (`Column.condition`) are never put together. The worst case for privacy
    is `psnr_max`, `ssim_max`, `lpips_min` and `psnr_over_floor_max`.

    Args:
        table: per-image results, columns of `dpbench.store.columns`.

    Returns:
        One row per condition; batch sizes in order, in each the floors first, then the undefended, then the
        defended rows, budgets ascending. Beside the conditions: `images` and `cells` (rows and cells that
        ended well, without images that a fishing server guesses), `failed` (cells that did not), per metric
        (a column with `better`) its mean, median,
        worst and for some quantiles, `psnr_over_floor_*` (dB above the best floor of the same image),
        `lpips_to_floor_*` (ratio to its lowest floor; below 1 is more alike than any floor),
        `label_accuracy` (0 to 1), `seconds` and `compile_seconds` (means over cells), `identified_share` (of
        the `identified_of` images that were looked for in a gallery, of `gallery_size`), `iip` (likewise, by
        a network's features; `iip_chance` is a blind guess's), how visible a malicious server's change is
        (`added_parameters`, `accuracy_drop`, `loss_rise`: means over images), and of the informed attacker
        `success` and `membership` over all `trials`, each with its exact 95 % interval (`*_low`, `*_high`)
        and its bound (`*_bound`).
    """
    return grouped(schema.numbered(table))[0].reset_index(drop=True)


@once
def grouped(table: pd.DataFrame) -> tuple[pd.DataFrame, pd.Series]:
    """The summary, and for each row of `table` the index of its condition in the summary.

    Args:
        table: as of `summary`, no two rows with the same index.
    """
    table = schema.conform(table)
    well = ended_well(table)
    table = table.assign(
        psnr_over_floor=over_floor(table["psnr"], table["psnr_floor"]),
        lpips_to_floor=to_floor(table["lpips"], table["lpips_floor"]),
    )
    conditions = list(condition_columns())
    group = numbered(table)
    counted = is_of_attack(table)
    measured, by = table[counted], group[counted]
    found = {
        "images": by.groupby(by).size(),
        "cells": measured["key"].groupby(by).nunique(),
        "failed": table.loc[~well, "key"].groupby(group[~well]).nunique(),
    }
    for metric, statistics in (_statistics() | _AGAINST_FLOORS).items():
        values = measured[metric].groupby(by)
        for statistic in statistics:
            found[f"{metric}_{statistic}"] = _statistic(values, statistic)
    means = {"label_accuracy": "label_correct", "identified_share": "identified"}
    means |= {name: name for name in ("gallery_size", "iip", "iip_chance")}
    means |= {name: name for name in ("success_bound", "membership_bound")}
    means |= {name: name for name in ("added_parameters", "accuracy_drop", "loss_rise")}
    found["identified_of"] = measured["identified"].groupby(by).count()
    for name, column in means.items():
        found[name] = measured[column].astype("Float64").astype("float64").groupby(by).mean()
    found |= _shares(measured, by)
    per_cell = measured.drop_duplicates("key")
    for times in ("seconds", "compile_seconds"):
        found[times] = per_cell[times].groupby(by[per_cell.index]).mean()
    heads = table.loc[~group.duplicated(), conditions].set_axis(group[~group.duplicated()])
    result = heads.join(pd.DataFrame(found))
    counts = ["images", "cells", "failed", "identified_of"]
    result[counts] = result[counts].fillna(0).astype("Int64")
    return ordered(result), group


def pooled(rows: pd.DataFrame) -> tuple[int, int]:
    """Successes and trials: of the informed attacker, or else images identified in a gallery and images."""
    informed = rows[rows["success"].notna()]
    if len(informed):
        return round(float((informed["success"] * informed["trials"]).sum())), int(informed["trials"].sum())
    asked = rows["identified"].dropna()
    return int(asked.sum()), len(asked)


def numbered(table: pd.DataFrame) -> pd.Series:
    """A number for each condition: one grouping by the few columns that differ, not one per statistic.

    Args:
        table: per-image results with all columns.

    Returns:
        The number of each row's condition, by its index.
    """
    differing = [name for name in condition_columns() if table[name].nunique(dropna=False) > 1]
    if not differing:
        return pd.Series(0, index=table.index)
    return table.groupby(differing, dropna=False, sort=False).ngroup()


def _statistics() -> dict[str, tuple[str, ...]]:
    return {
        name: ("mean", "median", worst(metric), *(("q10", "q90") if name in _QUANTILES else ()))
        for name, metric in metrics().items()
    }


def _shares(measured: pd.DataFrame, by: pd.Series) -> dict[str, pd.Series]:
    """The informed attacker's success and membership over all trials, with intervals."""
    found: dict[str, dict[int, float]] = {}
    asked = ["success", "trials", "membership", "membership_low", "membership_high"]
    picked = measured.loc[measured["success"].notna(), asked]  # without the many others, which cost time
    for group, rows in picked.groupby(by[picked.index]):
        right, trials = pooled(rows)
        values = {"trials": trials, "success": right / trials}
        values |= dict(zip(("success_low", "success_high"), clopper_pearson(right, trials), strict=True))
        for name, value in (values | _membership(rows)).items():
            found.setdefault(name, {})[group] = value
    names = ("trials", "success", "success_low", "success_high")
    names += ("membership", "membership_low", "membership_high")
    return {name: pd.Series(found.get(name, {}), dtype="float64") for name in names}


def _membership(rows: pd.DataFrame) -> dict[str, float]:
    """Membership of one condition: a single cell's as it stands, several cells' over all their answers."""
    rows = rows[rows["membership"].notna()]
    names = ("membership", "membership_low", "membership_high")
    if len(rows) < 2:
        return {name: float(rows[name].iloc[0]) for name in names if len(rows)}
    answers = 2 * int(rows["trials"].sum())  # in each trial: with the sample, and without
    right = round(float((rows["membership"] * 2 * rows["trials"]).sum()))
    return dict(zip(names, (right / answers, *clopper_pearson(right, answers)), strict=True))


def _statistic(values: pd.api.typing.SeriesGroupBy, statistic: str) -> pd.Series:
    if statistic == "median":
        statistic = "q50"
    if not statistic.startswith("q"):
        return getattr(values, statistic)()
    share = int(statistic[1:]) / 100
    found = values.quantile(share)
    # between infinities of both signs there is nothing halfway: take one of them
    lost = found.isna() & (values.count() > 0)
    return found.mask(lost, values.quantile(share, interpolation="nearest")) if lost.any() else found

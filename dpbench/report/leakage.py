"""The plot of leakage against the privacy budget, or by defence where there is none."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dpbench import schema
from dpbench.report import escape
from dpbench.report.labels import (
    attack_label,
    conditions_label,
    defense_label,
    distinguishing,
    is_defended,
    is_floor,
    varying_conditions,
)

# Okabe and Ito's colours, told apart by colour-blind readers too
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_MARKERS = "osD^vPX*"
_FLOOR_COLOURS, _DASHES = ("0.2", "0.6"), ("--", "-.", ":", (0, (8, 2)), (0, (1, 4)), (0, (8, 2, 1, 2, 1, 2)))
_METRICS = {"psnr": "PSNR, dB (higher leaks more)", "lpips": "LPIPS (lower leaks more)"}


def leakage(table: pd.DataFrame) -> Figure | None:
    """Draw PSNR and LPIPS of every image over epsilon, with medians, floors and the undefended rows.

    Epsilon's axis is logarithmic; defences without an epsilon, none among them, stand at its right end. One
    row of panels per batch size, one column per metric; an empty LPIPS has no column.

    Args:
        table: per-image results, columns of `dpbench.schema.SCHEMA`.

    Returns:
        The figure; None if no attack ended well.
    """
    table = schema.conform(table)
    table = distinguishing(table[table["status"].fillna("ok") == "ok"])
    attacked = table[~is_floor(table)]
    if attacked.empty:
        return None
    varying = varying_conditions(table)
    table = table.assign(_series=[_series(row, varying) for row in table.to_dict("records")])
    attacked = table[~is_floor(table)]
    ticks = _Ticks(attacked)
    metrics = [metric for metric in _METRICS if attacked[metric].notna().any()]
    sizes = sorted(attacked["batch_size"].dropna().unique())
    width = max(4.2, 1.6 + 0.75 * len(ticks.labels))
    figure = Figure(figsize=(width * len(metrics), 3.4 * len(sizes) + 0.8), layout="constrained")
    panels = figure.subplots(len(sizes), len(metrics), squeeze=False, sharex=True)
    styles = {name: i for i, name in enumerate(dict.fromkeys(attacked["_series"]))}
    for size, line in zip(sizes, panels, strict=True):
        part = table[(table["batch_size"] == size).fillna(False).astype(bool)]
        for metric, axis in zip(metrics, line, strict=True):
            _panel(axis, part, metric, ticks, styles)
            axis.set_title(f"batch of {size}", fontsize=9)
    _explain(figure, panels, attacked)
    return figure


def _explain(figure: Figure, panels: np.ndarray, attacked: pd.DataFrame) -> None:
    entries = {}
    for axis in panels.flat:
        handles, labels = axis.get_legend_handles_labels()
        entries |= dict(zip(labels, handles, strict=True))
    figure.legend(
        entries.values(), entries.keys(), loc="outside lower center", ncols=2, fontsize=8, handlelength=4
    )
    scopes = [
        name
        for name, there in (
            ("of the whole training", attacked["eps"].notna().any()),
            ("of the attacked gradient", (attacked["eps"].isna() & attacked["eps_release"].notna()).any()),
        )
        if there
    ]
    budget = f", ε is the budget {' or '.join(scopes)}" if scopes else ""
    missing = "" if attacked["lpips"].notna().any() else ", LPIPS is empty"
    title = f"Small: one image, large: median; dashed: what needs no gradient{budget}{missing}"
    figure.suptitle(title, fontsize=9)


class _Ticks:
    """Places on the x axis: epsilons at their logarithm, then one place for each defence without epsilon."""

    def __init__(self, attacked: pd.DataFrame) -> None:
        records = attacked.to_dict("records")
        budgets = sorted({budget for row in records if (budget := _budget(row)) is not None})
        bare = attacked[[_budget(row) is None for row in records]]
        ordered = bare.assign(_defended=is_defended(bare)).sort_values(
            ["_defended", "defense"], kind="stable"
        )
        names = dict.fromkeys(defense_label(row) for row in ordered.to_dict("records"))
        logs = [math.log10(budget) for budget in budgets]
        span = logs[-1] - logs[0] if logs else 0.0
        self.step = max(span / max(len(logs) - 1, 1), 0.5) if len(logs) > 1 else 1.0
        first = logs[-1] + self.step if logs else 0.0
        self.border = first - self.step / 2 if logs and names else None
        self.places = [*logs, *(first + self.step * i for i in range(len(names)))]
        self.labels = [
            *(f"ε={budget:g}" for budget in budgets),
            *("no defence" if name == "none" else name.replace(" ", "\n") for name in names),
        ]
        self._bare = dict(zip(names, self.places[len(logs) :], strict=True))

    def place(self, row: dict[str, Any]) -> float:
        budget = _budget(row)
        return self._bare[defense_label(row)] if budget is None else math.log10(budget)


def _budget(row: dict[str, Any]) -> float | None:
    """Epsilon of a row, the training's or else the release's; None where there is none to place."""
    value = row["eps_release"] if pd.isna(row["eps"]) else row["eps"]
    return float(value) if not pd.isna(value) and 0 < value < math.inf else None


def _series(row: dict[str, Any], varying: list[str]) -> str:
    """What shares a colour and a median line: the attack, what is chained to dp, the other conditions."""
    words = [attack_label(row)]
    if _budget(row) is not None and row["defense"] != "dp":
        words.append(defense_label(row, eps=False))
    if varying:
        words.append(conditions_label(row, varying))
    return ", ".join(words)


def _panel(axis: Axes, part: pd.DataFrame, metric: str, ticks: _Ticks, styles: dict[str, int]) -> None:
    part = part[np.isfinite(part[metric])]
    for i, (name, rows) in enumerate(part[is_floor(part)].groupby("_series")):
        style = {"color": _FLOOR_COLOURS[i % 2], "linestyle": _DASHES[i % len(_DASHES)], "linewidth": 1.2}
        axis.axhline(rows[metric].median(), label=_legend(name), **style)
    for name, rows in part[~is_floor(part)].groupby("_series", sort=False):
        index = styles[name]
        style = {"color": _COLOURS[index % len(_COLOURS)], "marker": _MARKERS[index % len(_MARKERS)]}
        # attacks stand side by side at one tick, the images of one attack about its place
        aside = ticks.step * 0.5 * ((index + 0.5) / len(styles) - 0.5)
        records = rows.to_dict("records")
        places = np.array([ticks.place(row) for row in records]) + aside
        rank = rows.groupby(places).cumcount().to_numpy() % 7
        jitter = ticks.step * 0.05 / len(styles) * ((rank + 1) // 2) * (-1.0) ** rank
        axis.plot(places + jitter, rows[metric], linestyle="", markersize=4, alpha=0.4, **style)
        medians = rows[metric].groupby(places).median()
        axis.plot(medians.index, medians, linestyle="", markersize=8, label=_legend(name), **style)
        private = [_budget(row) is not None for row in records]
        curve = rows.loc[private, metric].groupby(places[private]).median()
        axis.plot(curve.index, curve, color=style["color"], linewidth=1.2)
    if ticks.border is not None:
        axis.axvline(ticks.border, color="0.8", linewidth=1)
    axis.set_xticks(ticks.places, [escape.mathless(label) for label in ticks.labels], fontsize=8)
    axis.set_xlim(ticks.places[0] - ticks.step / 2, ticks.places[-1] + ticks.step / 2)
    axis.set_ylabel(_METRICS[metric], fontsize=8)
    axis.tick_params(labelsize=8, labelbottom=True)


def _legend(name: Any) -> str:
    text = escape.mathless(str(name))
    return f" {text}" if text.startswith("_") else text  # Matplotlib hides what starts with an underscore

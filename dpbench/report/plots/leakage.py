"""The plot of leakage against the privacy budget, or by defence where there is none."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from dpbench.report import escape
from dpbench.report.alike import said_of
from dpbench.report.naming import Naming, number
from dpbench.report.plots.leakage_ticks import LINE, Ticks, budget_of
from dpbench.report.plots.registry import plot
from dpbench.report.plots.style import COLOURS, COLUMN, FULL, MARKERS, SMALL, TEXT
from dpbench.report.plots.wrap import width as width_of
from dpbench.report.plots.wrap import wrap
from dpbench.report.rows import is_defended, is_floor, is_informed, is_of_attack, only_labels, ordered
from dpbench.report.units import scopes
from dpbench.store import Store, schema

CEILING = 60
"""PSNR from which on images are the same to the eye, dB: more is drawn there, or the rest would be flat."""
MAX_LINES = 4
"""Batch sizes and conditions in one plot at most, half as many in a column, which is a page either way; the
title says what was left out."""
MOST_SERIES = 4
"""Series in one panel at most, beside the best floor. Where there are more, attacks have own panels; the
title says what is left out even then."""
MANY = 1000
"""Points of one series from which on they are one picture in a drawing, not marks of their own."""

_FLOOR = "best floor without the gradient"
_METRICS = {"psnr": "PSNR, dB (up: leaks more)", "lpips": "LPIPS (down: leaks more)"}

_EDGE = {"markeredgecolor": "white", "markeredgewidth": 0.8, "zorder": 3}
"""Of medians: without it they drown in the marks of a hundred images of their colour."""

# all in inches: a figure has to be as high as its text needs, or Matplotlib's layout engine gives up
_PANEL, _LEFT, _RIGHT = 2.0, 0.55, 0.1  # the height of a panel; beside it, its scale and a margin
_HANDLE = 0.6  # beside a legend's text


def _alt(table: pd.DataFrame, store: Store | None) -> str:
    table = _attacks(schema.conform(table))
    naming = Naming(table)
    shown = [name for name in _METRICS if table.loc[~is_floor(table), name].notna().any()]
    said = [f"{' and '.join(map(str.upper, shown))} of rebuilt images, by defence."]
    table = ordered(table, batch_last=True)
    table = table.assign(_name=said_of(table, lambda r: f"{naming.attack(r)} under {naming.defence(r)}"))
    table = table[naming.told_by_sections("psnr", "_name")]
    for heading, part in naming.sections(table)[:MAX_LINES]:
        medians = part["psnr"].groupby(part["_name"], sort=False).median()
        floors = medians[medians.index.isin(part.loc[is_floor(part), "_name"])]
        best = f" (best floor {number(floors.max(), '.1f')} dB)" if floors.notna().any() else ""
        attacks = medians.drop(floors.index)
        told = "; ".join(f"{name} {number(value, '.1f')} dB" for name, value in attacks.items())
        said.append(f"{heading}, median PSNR{best}: {told}.")
    return " ".join(said)


@plot("leakage.png", title="What is rebuilt, by defence and budget", alt=_alt)
def leakage(table: pd.DataFrame, store: Store | None = None, width: float = FULL) -> Figure | None:
    """Draw PSNR and LPIPS of every image over epsilon, with medians, floors and the undefended rows.

    Epsilon's axis is logarithmic; defences without an epsilon, none among them, stand at its right end. Each
    batch size, and each of the other conditions that vary, has panels of its own, one per metric; an empty
    LPIPS has none. The dashed line is the best floor of the panel, by its median.

    Args:
        table: per-image results, columns of `dpbench.store.columns`.
        store: not needed.
        width: of the figure, inches.

    Returns:
        The figure; None if no attack ended well.
    """
    table = _attacks(schema.conform(table))
    naming = Naming(table)
    table = ordered(table, batch_last=True)
    # the undefended rows first, so that colours begin with the attacks as such
    table = table.assign(_defended=is_defended(table)).sort_values("_defended", kind="stable")
    if is_floor(table).all():
        return None
    table = table.assign(_series=_series(table, naming))
    of = table.loc[~is_floor(table), ["attack", "_series"]].nunique()
    apart = bool(of["_series"] > MOST_SERIES and of["attack"] > 1)
    if apart:
        table = table.assign(_series=_series(table, naming, apart=True))
    series = _leaking_most(table[~is_floor(table)])
    table = table[is_floor(table) | table["_series"].isin(series[:MOST_SERIES])]
    attacked = table[~is_floor(table)]
    metrics = [metric for metric in _METRICS if attacked[metric].notna().any()]
    across = len(metrics) if width > COLUMN else 1
    ticks, styles = Ticks(attacked, naming, width / across - _LEFT - _RIGHT), _styles(table)
    table = _placed(table, attacked, ticks)[
        naming.told_by_sections("attack", *metrics, "_series", "_place", "_private")
    ]
    parts = naming.sections(table)
    parts = [each for part in parts for each in _by_attack(*part)] if apart else parts
    shown = parts[: MAX_LINES if width > COLUMN else MAX_LINES // 2]
    panels = [
        (wrap(heading, ticks.inches, TEXT), part, metric) for heading, part in shown for metric in metrics
    ]
    title = _title(attacked, len(shown), len(parts), len(series), apart)
    figure, axes = _layout(title, [panel[0] for panel in panels], styles, ticks, across, width)
    for i, (axis, (heading, part, metric)) in enumerate(zip(axes, panels, strict=True)):
        axis.sharey(axes[i % len(metrics)])
        axis.set_title(escape.matplotlib(heading))
        _panel(axis, part, metric, ticks, styles)
    return figure


def _placed(table: pd.DataFrame, attacked: pd.DataFrame, ticks: Ticks) -> pd.DataFrame:
    """`table` with `_place` on the x axis and `_private`: whether it is an epsilon; both empty for floors."""
    attacks = (~is_floor(table)).to_numpy()
    place, private = np.full(len(table), math.nan), np.zeros(len(table), dtype=bool)
    place[attacks] = said_of(attacked, ticks.place)
    private[attacks] = [budget is not None for budget in said_of(attacked, budget_of)]
    return table.assign(_place=place, _private=private)


def _attacks(table: pd.DataFrame) -> pd.DataFrame:
    return table[is_of_attack(table) & ~is_informed(table) & ~only_labels(table)]


def _leaking_most(attacked: pd.DataFrame) -> list[str]:
    """Names of all series, those of the highest median PSNR first."""
    medians = attacked["psnr"].fillna(-math.inf).groupby(attacked["_series"], sort=False).median()
    return list(medians.sort_values(ascending=False, kind="stable").index)


def _by_attack(heading: str, part: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Panels of one attack each, with the floors that are its own or nobody's."""
    for attack in part.loc[~is_floor(part), "attack"].unique():
        own = (part["attack"] == attack) | (is_floor(part) & part["floor_of"].fillna(attack).eq(attack))
        yield f"{attack}, {heading[:1].lower()}{heading[1:]}", part[own]


def _layout(
    title: str,
    headings: list[str],
    styles: dict[str, dict[str, Any]],
    ticks: Ticks,
    across: int,
    width: float,
) -> tuple[Figure, list[Axes]]:
    """A figure as high as its text needs, with title, legend and an empty panel for each heading."""
    title = wrap(title, width - 0.2, TEXT)
    names = [wrap(name, width - _HANDLE - 0.2, SMALL) for name in styles]
    columns = max(1, int((width - 0.2) / (max(width_of(name, SMALL) for name in names) + _HANDLE)))
    bottom = 0.25 + LINE * math.ceil(len(names) / columns) * max(map(_lines, names))
    above = 0.15 + LINE * max(map(_lines, headings))
    pitch = above + _PANEL + 0.15 + ticks.height
    down = math.ceil(len(headings) / across)
    high = 0.15 + LINE * _lines(title) + down * pitch + bottom
    figure = Figure(figsize=(width, high), layout="constrained")
    figure.suptitle(escape.matplotlib(title))
    handles = [Line2D([], [], **style) for style in styles.values()]
    words = [escape.matplotlib(name) for name in names]
    figure.legend(
        handles,
        words,
        loc="outside lower center",
        ncols=columns,
        handlelength=3,
        columnspacing=1,
        frameon=False,
    )
    return figure, list(figure.subplots(down, across, squeeze=False).flat)


def _lines(text: str) -> int:
    return text.count("\n") + 1


def _title(attacked: pd.DataFrame, shown: int, parts: int, series: int, apart: bool) -> str:
    title = "Small: one image, large: median"
    if found := scopes(attacked):
        title += f", ε is the budget of {' or of '.join(found)}"
    if attacked["lpips"].isna().all():
        title += ", LPIPS is empty"
    more = [f"{MOST_SERIES} of {series} series, the most leaking"] if series > MOST_SERIES else []
    what = "attacks, batch sizes and conditions" if apart else "batch sizes and conditions"
    more += [f"{shown} of {parts} {what}"] if parts > shown else []
    return "\n".join(filter(None, (title, "; ".join(more))))


def _styles(table: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """How each series is drawn, the same in all panels: the best floor as a line, attacks as points."""
    floor = {"color": "0.2", "linestyle": "--", "linewidth": 1.2}
    styles: dict[str, dict[str, Any]] = {_FLOOR: floor} if is_floor(table).any() else {}
    for i, name in enumerate(dict.fromkeys(table.loc[~is_floor(table), "_series"])):
        colour, marker = COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)]
        styles[name] = {"color": colour, "marker": marker, "linestyle": "", "markersize": 6.5}
    return styles


def _series(table: pd.DataFrame, naming: Naming, *, apart: bool = False) -> list[str]:
    """What shares a colour and a median line: the attack, and what is set beside epsilon.

    The plainest defence with an epsilon shares its colour with the undefended rows.

    Args:
        table: attacks and floors.
        naming: of it.
        apart: each attack has panels of its own, whose headings name it.
    """

    def parts(row: Mapping[str, Any]) -> tuple[str, str, float | None]:
        attack = naming.attack(row)
        if apart and pd.isna(row["floor"]):
            attack = f"attack{attack.removeprefix(str(row['attack']))}"
        return attack, naming.defence(row, eps=False), budget_of(row)

    names = said_of(table, parts)
    plainest = min((beside for _, beside, budget in names if budget is not None), key=len, default="")
    return [
        attack if budget is None or (beside == plainest and " " not in beside) else f"{attack}, {beside}"
        for attack, beside, budget in names
    ]


def _panel(
    axis: Axes, part: pd.DataFrame, metric: str, ticks: Ticks, styles: dict[str, dict[str, Any]]
) -> None:
    part = part[part[metric].notna()].assign(**{metric: lambda rows: rows[metric].clip(upper=CEILING)})
    floors = is_floor(part)
    guesses = part.loc[floors, metric].groupby(part.loc[floors, "_series"]).median()
    if len(guesses):
        axis.axhline(guesses.max() if metric == "psnr" else guesses.min(), gid=_FLOOR, **styles[_FLOOR])
    attacks = [name for name, style in styles.items() if "marker" in style]
    for name, rows in part[~floors].groupby("_series", sort=False):
        style = styles[name]
        # attacks stand side by side at one tick, the images of one attack about its place
        aside = ticks.step * 0.5 * ((attacks.index(name) + 0.5) / len(attacks) - 0.5)
        places = rows["_place"].to_numpy() + aside
        rank = rows.groupby(places).cumcount().to_numpy() % 7
        jitter = ticks.step * 0.05 / len(attacks) * ((rank + 1) // 2) * (-1.0) ** rank
        small = {"markersize": 3, "alpha": 0.4, "rasterized": len(rows) > MANY}
        axis.plot(places + jitter, rows[metric], **style | small)
        medians = rows[metric].groupby(places).median()
        axis.plot(medians.index, medians, gid=name, **style | _EDGE)
        private = rows["_private"].to_numpy()
        curve = rows.loc[private, metric].groupby(places[private]).median()
        axis.plot(curve.index, curve, color=style["color"], linewidth=1.2)
    if ticks.border is not None:
        axis.axvline(ticks.border, color="0.8", linewidth=1)
    axis.set_xticks(ticks.places, [escape.matplotlib(label) for label in ticks.labels])
    if ticks.upright:
        axis.tick_params(axis="x", labelrotation=90)
    axis.set_xlim(*ticks.limits)
    above = metric == "psnr" and bool((part[metric] == CEILING).any())
    axis.set_ylabel(f"{_METRICS[metric]}; {CEILING}: or more" if above else _METRICS[metric])

"""The plot of leakage against the privacy budget, or by defence where there is none."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from dpbench.report import escape
from dpbench.report.naming import Naming
from dpbench.report.plots.colours import OKABE_ITO
from dpbench.report.plots.registry import plot
from dpbench.report.plots.wrap import width, wrap
from dpbench.report.rows import ended_well, is_defended, is_floor, is_informed, only_labels, ordered
from dpbench.store import Store, schema

CEILING = 60
"""PSNR from which on images are the same to the eye, dB: more is drawn there, or the rest would be flat."""
MAX_LINES = 12
"""Rows of panels in one plot at most; the title says what was left out."""

_MARKERS = "osD^vPX*"
_FLOOR_COLOURS, _DASHES = ("0.2", "0.6"), ("--", "-.", ":", (0, (8, 2)), (0, (1, 4)), (0, (8, 2, 1, 2, 1, 2)))
_METRICS = {"psnr": f"PSNR, dB (higher leaks more; {CEILING}: or above)", "lpips": "LPIPS (lower leaks more)"}
_SMALL, _TITLE = 8, 9  # sizes of the font, points

# all in inches: a figure has to be as large as its text needs, or Matplotlib's layout engine gives up
_LINE = 0.16  # a line of text
_PANEL, _LEFT, _RIGHT = 2.3, 0.75, 0.15  # the height of a panel; beside it, its scale and a margin
_LEAST_WIDTH, _MOST_WIDTH = 3.2, 16  # of one panel; of panels side by side
_LEAST_TICK, _MOST_TICK = 0.75, 1.3  # the room for a tick's name
_HANDLE = 0.8  # beside a legend's text


@plot("leakage.png")
def leakage(table: pd.DataFrame, store: Store | None = None) -> Figure | None:
    """Draw PSNR and LPIPS of every image over epsilon, with medians, floors and the undefended rows.

    Epsilon's axis is logarithmic; defences without an epsilon, none among them, stand at its right end. Each
    batch size, and each of the other conditions that vary, has panels of its own, one per metric; an empty
    LPIPS has none.

    Args:
        table: per-image results, columns of `dpbench.store.columns`.
        store: not needed.

    Returns:
        The figure; None if no attack ended well.
    """
    table = schema.conform(table)
    table = table[ended_well(table) & ~is_informed(table) & ~only_labels(table)]
    naming = Naming(table)
    table = ordered(table, batch_last=True)
    table = table.assign(_series=_series(table, naming))
    # the undefended rows first, so that colours begin with the attacks as such
    table = table.assign(_defended=is_defended(table)).sort_values("_defended", kind="stable")
    attacked = table[~is_floor(table)]
    if attacked.empty:
        return None
    ticks, styles = _Ticks(attacked, naming), _styles(table)
    metrics = [metric for metric in _METRICS if attacked[metric].notna().any()]
    parts = naming.sections(table)
    panels = [
        (wrap(heading, ticks.inches, _TITLE), part, metric)
        for heading, part in parts[:MAX_LINES]
        for metric in metrics
    ]
    figure, axes = _layout(
        _title(attacked, len(parts)), [panel[0] for panel in panels], styles, ticks, len(metrics)
    )
    for i, (axis, (heading, part, metric)) in enumerate(zip(axes, panels, strict=True)):
        axis.sharey(axes[i % len(metrics)])
        axis.set_title(escape.matplotlib(heading), fontsize=_TITLE)
        _panel(axis, part, metric, ticks, styles)
    return figure


def _layout(
    title: str, headings: list[str], styles: dict[str, dict[str, Any]], ticks: _Ticks, metrics: int
) -> tuple[Figure, list[Axes]]:
    """A figure as large as its text needs, with title, legend and an empty panel for each heading."""
    panel = _LEFT + ticks.inches + _RIGHT
    across = metrics if metrics * panel <= _MOST_WIDTH else 1
    wide = across * panel
    title = wrap(title, wide - 0.2, _TITLE)
    names = [wrap(name, wide - _HANDLE - 0.2, _SMALL) for name in styles]
    columns = max(1, int((wide - 0.2) / (max(width(name, _SMALL) for name in names) + _HANDLE)))
    bottom = 0.25 + _LINE * math.ceil(len(names) / columns) * max(map(_lines, names))
    above, below = 0.15 + _LINE * max(map(_lines, headings)), 0.15 + _LINE * max(map(_lines, ticks.labels))
    pitch = above + _PANEL + below
    down = math.ceil(len(headings) / across)
    high = 0.15 + _LINE * _lines(title) + down * pitch + bottom
    figure = Figure(figsize=(wide, high), layout="constrained")
    figure.suptitle(escape.matplotlib(title), fontsize=_TITLE)
    handles = [Line2D([], [], **style) for style in styles.values()]
    words = [escape.matplotlib(name) for name in names]
    figure.legend(handles, words, loc="outside lower center", ncols=columns, fontsize=_SMALL, handlelength=4)
    return figure, list(figure.subplots(down, across, squeeze=False).flat)


def _lines(text: str) -> int:
    return text.count("\n") + 1


def _title(attacked: pd.DataFrame, parts: int) -> str:
    title = "Small: one image, large: median; dashed: what needs no gradient"
    scopes = {
        "of the whole training": attacked["eps"].notna().any(),
        "of the attacked gradient": (attacked["eps"].isna() & attacked["eps_release"].notna()).any(),
    }
    if any(scopes.values()):
        title += f", ε is the budget {' or '.join(scope for scope, there in scopes.items() if there)}"
    if attacked["lpips"].isna().all():
        title += ", LPIPS is empty"
    return title if parts <= MAX_LINES else f"{title}\n{MAX_LINES} of {parts} batch sizes and conditions"


def _styles(table: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """How each series is drawn, the same in all panels: floors as lines, attacks as points."""
    styles: dict[str, dict[str, Any]] = {}
    for i, name in enumerate(sorted(set(table.loc[is_floor(table), "_series"]))):
        colour = _FLOOR_COLOURS[(i + i // len(_DASHES)) % 2]
        styles[name] = {"color": colour, "linestyle": _DASHES[i % len(_DASHES)], "linewidth": 1.2}
    for i, name in enumerate(dict.fromkeys(table.loc[~is_floor(table), "_series"])):
        colour, marker = OKABE_ITO[i % len(OKABE_ITO)], _MARKERS[i % len(_MARKERS)]
        styles[name] = {"color": colour, "marker": marker, "linestyle": "", "markersize": 8}
    return styles


class _Ticks:
    """The x axis: epsilons at their logarithm, then one place for each defence without epsilon."""

    def __init__(self, attacked: pd.DataFrame, naming: Naming) -> None:
        self._naming = naming
        records = attacked.to_dict("records")
        budgets = sorted({budget for row in records if (budget := _budget(row)) is not None})
        bare = attacked[[_budget(row) is None for row in records]]
        names = dict.fromkeys(naming.defence(row) for row in bare.to_dict("records"))
        logs = [math.log10(budget) for budget in budgets]
        span = logs[-1] - logs[0] if logs else 0.0
        self.step = max(span / max(len(logs) - 1, 1), 0.5) if len(logs) > 1 else 1.0
        first = logs[-1] + self.step if logs else 0.0
        self.border = first - self.step / 2 if logs and names else None
        self.places = [*logs, *(first + self.step * i for i in range(len(names)))]
        self.limits = self.places[0] - self.step / 2, self.places[-1] + self.step / 2
        self._bare = dict(zip(names, self.places[len(logs) :], strict=True))
        texts = [wrap(name.replace(" ", "\n"), _MOST_TICK, _SMALL) for name in names]
        room = max([_LEAST_TICK, *(width(text, _SMALL) + 0.1 for text in texts)])
        self.inches = max(_LEAST_WIDTH, room * len(self.places))
        self.labels = [*self._staggered(budgets, logs), *texts]

    def place(self, row: dict[str, Any]) -> float:
        budget = _budget(row)
        return self._bare[self._naming.defence(row)] if budget is None else math.log10(budget)

    def _staggered(self, budgets: list[float], logs: list[float]) -> list[str]:
        """Names of epsilons, one line lower wherever the one before is too near."""
        per_inch = (self.limits[1] - self.limits[0]) / self.inches
        names = [f"ε={budget:g}" for budget in budgets]
        lower = 0
        for i in range(1, len(names)):
            near = (logs[i] - logs[i - 1]) / per_inch < width(names[i], _SMALL) + 0.1
            lower = (lower + 1) % 3 if near else 0
            names[i] = "\n" * lower + names[i]
        return names


def _budget(row: dict[str, Any]) -> float | None:
    """Epsilon of a row, the training's or else the release's; None where there is none to place."""
    value = row["eps_release"] if pd.isna(row["eps"]) else row["eps"]
    return float(value) if not pd.isna(value) and 0 < value < math.inf else None


def _series(table: pd.DataFrame, naming: Naming) -> list[str]:
    """What shares a colour and a median line: the attack, and what is set beside epsilon.

    The plainest defence with an epsilon shares its colour with the undefended rows.
    """
    rows = table.to_dict("records")
    # a line for each setting of a floor would be more lines than can be told apart
    attacks = [naming.attack(row, with_settings=pd.isna(row["floor"])) for row in rows]
    names = [
        (attack, naming.defence(row, eps=False), _budget(row))
        for attack, row in zip(attacks, rows, strict=True)
    ]
    plainest = min((beside for _, beside, budget in names if budget is not None), key=len, default="")
    return [
        attack if budget is None or (beside == plainest and " " not in beside) else f"{attack}, {beside}"
        for attack, beside, budget in names
    ]


def _panel(
    axis: Axes, part: pd.DataFrame, metric: str, ticks: _Ticks, styles: dict[str, dict[str, Any]]
) -> None:
    part = part[part[metric].notna()].assign(**{metric: lambda rows: rows[metric].clip(upper=CEILING)})
    floors = is_floor(part)
    for name, rows in part[floors].groupby("_series"):
        axis.axhline(rows[metric].median(), gid=name, **styles[name])
    attacks = [name for name, style in styles.items() if "marker" in style]
    for name, rows in part[~floors].groupby("_series", sort=False):
        style = styles[name]
        # attacks stand side by side at one tick, the images of one attack about its place
        aside = ticks.step * 0.5 * ((attacks.index(name) + 0.5) / len(attacks) - 0.5)
        records = rows.to_dict("records")
        places = np.array([ticks.place(row) for row in records]) + aside
        rank = rows.groupby(places).cumcount().to_numpy() % 7
        jitter = ticks.step * 0.05 / len(attacks) * ((rank + 1) // 2) * (-1.0) ** rank
        axis.plot(places + jitter, rows[metric], **style | {"markersize": 4, "alpha": 0.4})
        medians = rows[metric].groupby(places).median()
        axis.plot(medians.index, medians, gid=name, **style)
        private = [_budget(row) is not None for row in records]
        curve = rows.loc[private, metric].groupby(places[private]).median()
        axis.plot(curve.index, curve, color=style["color"], linewidth=1.2)
    if ticks.border is not None:
        axis.axvline(ticks.border, color="0.8", linewidth=1)
    axis.set_xticks(ticks.places, [escape.matplotlib(label) for label in ticks.labels], fontsize=_SMALL)
    axis.set_xlim(*ticks.limits)
    axis.set_ylabel(_METRICS[metric], fontsize=_SMALL)
    axis.tick_params(labelsize=_SMALL)

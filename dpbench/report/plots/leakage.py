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
from dpbench.report.plots.axes import short
from dpbench.report.plots.colours import OKABE_ITO
from dpbench.report.plots.registry import plot
from dpbench.report.plots.style import COLUMN, FULL, SMALL, TEXT
from dpbench.report.plots.wrap import width as width_of
from dpbench.report.plots.wrap import wrap
from dpbench.report.rows import ended_well, is_defended, is_floor, is_informed, only_labels, ordered
from dpbench.store import Store, schema

CEILING = 60
"""PSNR from which on images are the same to the eye, dB: more is drawn there, or the rest would be flat."""
MAX_LINES = 4
"""Batch sizes and conditions in one plot at most, half as many in a column, which is a page either way; the
title says what was left out."""
MANY = 1000
"""Points of one series from which on they are one picture in a drawing, not marks of their own."""

_MARKERS = "osD^vPX*"
_FLOOR_COLOURS, _DASHES = ("0.2", "0.6"), ("--", "-.", ":", (0, (8, 2)))
_METRICS = {"psnr": "PSNR, dB (up: leaks more)", "lpips": "LPIPS (down: leaks more)"}

# all in inches: a figure has to be as high as its text needs, or Matplotlib's layout engine gives up
_LINE = 0.145  # a line of text
_PANEL, _LEFT, _RIGHT = 2.0, 0.55, 0.1  # the height of a panel; beside it, its scale and a margin
_TICK, _UPRIGHT = 0.75, 2.3  # the most room for a tick's name, lying and standing
_HANDLE = 0.6  # beside a legend's text


def _alt(table: pd.DataFrame, store: Store | None) -> str:
    table = _attacks(schema.conform(table))
    naming = Naming(table)
    said = ["PSNR and LPIPS of every rebuilt image, by defence."]
    for heading, part in naming.sections(ordered(table, batch_last=True))[:MAX_LINES]:
        part = part[~is_floor(part)]
        names = [f"{naming.attack(r)} under {naming.defence(r)}" for r in part.to_dict("records")]
        medians = part["psnr"].groupby(names, sort=False).median()
        floor = part["psnr_floor"].median()
        said.append(
            f"{heading}, median PSNR (best floor {floor:.1f} dB): "
            + "; ".join(f"{name} {value:.1f} dB" for name, value in medians.items())
            + "."
        )
    return " ".join(said)


@plot("leakage.png", title="What is rebuilt, by defence and budget", alt=_alt)
def leakage(table: pd.DataFrame, store: Store | None = None, width: float = FULL) -> Figure | None:
    """Draw PSNR and LPIPS of every image over epsilon, with medians, floors and the undefended rows.

    Epsilon's axis is logarithmic; defences without an epsilon, none among them, stand at its right end. Each
    batch size, and each of the other conditions that vary, has panels of its own, one per metric; an empty
    LPIPS has none.

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
    table = table.assign(_series=_series(table, naming))
    # the undefended rows first, so that colours begin with the attacks as such
    table = table.assign(_defended=is_defended(table)).sort_values("_defended", kind="stable")
    attacked = table[~is_floor(table)]
    if attacked.empty:
        return None
    metrics = [metric for metric in _METRICS if attacked[metric].notna().any()]
    across = len(metrics) if width > COLUMN else 1
    ticks, styles = _Ticks(attacked, naming, width / across - _LEFT - _RIGHT), _styles(table)
    parts = naming.sections(table)
    shown = parts[: MAX_LINES if width > COLUMN else MAX_LINES // 2]
    panels = [
        (wrap(heading, ticks.inches, TEXT), part, metric) for heading, part in shown for metric in metrics
    ]
    title = _title(attacked, len(shown), len(parts))
    figure, axes = _layout(title, [panel[0] for panel in panels], styles, ticks, across, width)
    for i, (axis, (heading, part, metric)) in enumerate(zip(axes, panels, strict=True)):
        axis.sharey(axes[i % len(metrics)])
        axis.set_title(escape.matplotlib(heading))
        _panel(axis, part, metric, ticks, styles)
    return figure


def _attacks(table: pd.DataFrame) -> pd.DataFrame:
    return table[ended_well(table) & ~is_informed(table) & ~only_labels(table)]


def _layout(
    title: str,
    headings: list[str],
    styles: dict[str, dict[str, Any]],
    ticks: _Ticks,
    across: int,
    width: float,
) -> tuple[Figure, list[Axes]]:
    """A figure as high as its text needs, with title, legend and an empty panel for each heading."""
    title = wrap(title, width - 0.2, TEXT)
    names = [wrap(name, width - _HANDLE - 0.2, SMALL) for name in styles]
    columns = max(1, int((width - 0.2) / (max(width_of(name, SMALL) for name in names) + _HANDLE)))
    bottom = 0.25 + _LINE * math.ceil(len(names) / columns) * max(map(_lines, names))
    above = 0.15 + _LINE * max(map(_lines, headings))
    pitch = above + _PANEL + 0.15 + ticks.height
    down = math.ceil(len(headings) / across)
    high = 0.15 + _LINE * _lines(title) + down * pitch + bottom
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


def _title(attacked: pd.DataFrame, shown: int, parts: int) -> str:
    title = "Small: one image, large: median; dashed: what needs no gradient"
    scopes = {
        "of the whole training": attacked["eps"].notna().any(),
        "of the attacked gradient": (attacked["eps"].isna() & attacked["eps_release"].notna()).any(),
    }
    if any(scopes.values()):
        title += f", ε is the budget {' or '.join(scope for scope, there in scopes.items() if there)}"
    if attacked["lpips"].isna().all():
        title += ", LPIPS is empty"
    return title if parts <= shown else f"{title}\n{shown} of {parts} batch sizes and conditions"


def _styles(table: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """How each series is drawn, the same in all panels: floors as lines, attacks as points."""
    styles: dict[str, dict[str, Any]] = {}
    for i, name in enumerate(sorted(set(table.loc[is_floor(table), "_series"]))):
        colour = _FLOOR_COLOURS[(i + i // len(_DASHES)) % 2]
        styles[name] = {"color": colour, "linestyle": _DASHES[i % len(_DASHES)], "linewidth": 1.2}
    for i, name in enumerate(dict.fromkeys(table.loc[~is_floor(table), "_series"])):
        colour, marker = OKABE_ITO[i % len(OKABE_ITO)], _MARKERS[i % len(_MARKERS)]
        styles[name] = {"color": colour, "marker": marker, "linestyle": "", "markersize": 6.5}
    return styles


class _Ticks:
    """The x axis: epsilons at their logarithm, then one place for each defence without epsilon.

    Names lie where there is room for them side by side, and stand upright where there is not.
    """

    def __init__(self, attacked: pd.DataFrame, naming: Naming, inches: float) -> None:
        self._naming, self.inches = naming, inches
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
        per_inch = (self.limits[1] - self.limits[0]) / self.inches
        texts = [wrap(name.replace(" ", "\n"), _TICK, SMALL) for name in names]
        # each needs half its width on either side, and the border between both kinds is no place for names
        rooms = [width_of(text, SMALL) + 0.06 for text in texts]
        budgets_named = self._staggered(budgets, logs, per_inch)
        self.upright = any(room * per_inch > self.step for room in rooms) or budgets_named is None
        if self.upright:
            budgets_named = _thinned(budgets, logs, _LINE * per_inch)
            texts = [wrap(name, _UPRIGHT, SMALL) for name in names]
        self.labels = [*(budgets_named or []), *texts]
        if self.upright:
            self.height = max(width_of(label, SMALL) for label in self.labels)
        else:
            self.height = _LINE * max(map(_lines, self.labels))

    def place(self, row: dict[str, Any]) -> float:
        budget = _budget(row)
        return self._bare[self._naming.defence(row)] if budget is None else math.log10(budget)

    def _staggered(self, budgets: list[float], logs: list[float], per_inch: float) -> list[str] | None:
        """Names of epsilons, one line lower where the one before is too near; None where even that fails."""
        names, lines = [f"ε={short(budget)}" for budget in budgets], []
        ends = [-math.inf] * 3  # where the last name of each line ends, in inches
        for name, log in zip(names, logs, strict=True):
            place, half = log / per_inch, width_of(name, SMALL) / 2 + 0.04
            line = next((line for line, end in enumerate(ends) if place - half >= end), None)
            if line is None:
                return None
            ends[line] = place + half
            lines.append("\n" * line + name)
        return lines


def _thinned(budgets: list[float], logs: list[float], apart: float) -> list[str]:
    """Names of epsilons, none where one before is nearer than `apart`."""
    names, last = [], -math.inf
    for budget, log in zip(budgets, logs, strict=True):
        names.append(f"ε={short(budget)}" if log - last >= apart else "")
        last = log if names[-1] else last
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
        small = {"markersize": 3, "alpha": 0.4, "rasterized": len(rows) > MANY}
        axis.plot(places + jitter, rows[metric], **style | small)
        medians = rows[metric].groupby(places).median()
        axis.plot(medians.index, medians, gid=name, **style)
        private = [_budget(row) is not None for row in records]
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

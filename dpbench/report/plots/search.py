"""The plot of how the searches went: the objective over the iterations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from dpbench.report import escape
from dpbench.report.alike import said_of
from dpbench.report.naming import EMPTY, Naming
from dpbench.report.plots import labels
from dpbench.report.plots.registry import plot
from dpbench.report.plots.style import COLOURS, COLUMN, DASHES, GREY, MOST, TEXT
from dpbench.report.plots.wrap import wrap
from dpbench.report.rows import ended_well, ordered
from dpbench.store import Store, schema
from dpbench.system.once import once

MOST_PANELS, MOST_CELLS = 4, 200
"""Attacks and batch sizes shown, and cells read for each curve, at most."""
_HIGH, _NAMES = 2.3, 1.15  # of a panel; beside it, for the names of curves, inches
_STEPS = 100  # places at which histories of one curve are compared


def histories(table: pd.DataFrame, store: Store | None) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The history of each cell's search by the cell's key; cells without one are left out.

    Args:
        table: per-image results, columns of `dpbench.store.columns`.
        store: the run's cells.

    Returns:
        Iterations, and the objective after so many. Cells of older versions did not keep the iterations:
        theirs are evenly apart up to the last one.
    """
    found = {}
    firsts = table.drop_duplicates("key")[["key", "iterations", "max_iterations"]]
    for row in firsts.to_dict("records") if store is not None else ():
        history, steps = _kept(store, row["key"])
        if history is None or len(history) < 2 or not np.isfinite(history[-1]):
            continue
        if steps is None:
            last = float(row["iterations"] if pd.isna(row["max_iterations"]) else row["max_iterations"])
            steps = last * np.arange(1, len(history) + 1) / len(history)
        found[row["key"]] = steps, history
    return found


@once
def _kept(store: Store, key: str) -> tuple[np.ndarray | None, np.ndarray | None]:
    """The history of a cell's search and its iterations, each where the cell holds it."""
    try:
        cell = store.read(key)
    except KeyError:
        return None, None
    return cell.history, cell.history_steps


def _alt(table: pd.DataFrame, store: Store | None) -> str:
    cells = _searched(table).drop_duplicates("key")
    found = histories(cells.head(MOST_CELLS), store)
    first = "the first " if len(cells) > MOST_CELLS else ""
    falls = [float(history[-1] / history[np.isfinite(history)][0]) for _, history in found.values()]
    middle = f" In the median cell it ends at {np.median(falls):.2g} of where it began." if falls else ""
    return f"The lowest objective found so far over the iterations of {first}{len(found)} searches.{middle}"


@plot("search.png", title="The objective over the iterations", alt=_alt)
def search(table: pd.DataFrame, store: Store | None = None, width: float = 6.5) -> Figure | None:
    """Draw the lowest objective so far over the iterations of each start, a panel for each attack.

    Thin lines are single cells, thick ones medians over the cells of a defence. The objective is the distance
    of the gradients with the attack's priors, so heights of different attacks cannot be compared. Grey is the
    same search on noise instead of the gradient.

    Args:
        table: per-image results, columns of `dpbench.store.columns`.
        store: the run's cells, which hold the histories.
        width: of the figure, inches.

    Returns:
        The figure; None where no cell has a history.
    """
    table = _searched(table)
    naming = Naming(table)
    table = ordered(table, batch_last=True).drop_duplicates("key")
    if table.empty:
        return None
    table = table.assign(
        _panel=said_of(table, lambda row: _panel_name(row, naming)),
        _curve=said_of(table, lambda row: _curve_name(row, naming)),
    )
    table = table.groupby(["_panel", "_curve"], sort=False).head(MOST_CELLS)
    found = histories(table, store)
    table = table[table["key"].isin(found)]
    names = list(dict.fromkeys(table["_panel"]))
    if not names:
        return None
    shown = names[:MOST_PANELS]
    across = 1 if width <= COLUMN or len(shown) == 1 else 2
    down = -(-len(shown) // across)
    figure = Figure(figsize=(width, 0.3 + _HIGH * down), layout="constrained")
    panels = figure.subplots(down, across, squeeze=False)
    for axis in panels.flat[len(shown) :]:
        axis.set_axis_off()
    left_out: dict[str, None] = {}
    for axis, name in zip(panels.flat, shown, strict=False):
        part = table[table["_panel"] == name]
        left_out |= dict.fromkeys(_panel(axis, part, found, _NAMES if width / across > 3.2 else 0.9))
        axis.set_title(escape.matplotlib(wrap(name, width / across - 0.3, TEXT)))
    for axis in panels[:, 0]:
        axis.set_ylabel("objective, lowest so far")
    more = [f"{len(shown)} of {len(names)} attacks and batch sizes"] if len(names) > len(shown) else []
    more += [f"without {', '.join(left_out)}"] if left_out else []
    if more:
        figure.suptitle(escape.matplotlib(wrap("; ".join(more), width - 0.2, TEXT)))
    labels.spread(figure)
    return figure


def _searched(table: pd.DataFrame) -> pd.DataFrame:
    table = schema.conform(table)
    own = table["floor"].isna() | (table["floor"] == "noise-gradient")  # a start is no search
    return table[ended_well(table) & own & table["iterations"].notna()]


def _panel_name(row: Mapping[str, Any], naming: Naming) -> str:
    attack = row["floor_of"] if not pd.isna(row["floor"]) else row["attack"]
    words = [str(attack), f"batch of {row['batch_size']}"]
    settings = naming.attack_settings(row)
    return ", ".join(words + settings + naming.heading(row))


def _curve_name(row: Mapping[str, Any], naming: Naming) -> str:
    defence = naming.defence(row)
    if defence == EMPTY:
        return "noise as gradient"
    adapted = defence == "no defence" or pd.isna(row["adaptive"]) or row["adaptive"]
    return defence if adapted else f"{defence}, not adaptive"


def _panel(
    axis: Axes, part: pd.DataFrame, found: dict[str, tuple[np.ndarray, np.ndarray]], inches: float
) -> list[str]:
    """Draw the curves of one attack; names of those left out."""
    curves = list(dict.fromkeys(part["_curve"]))
    floor = [name for name in curves if name == "noise as gradient"]
    own = [name for name in curves if name not in floor]
    room = MOST - len(floor)
    places = np.unique(np.linspace(0, len(own) - 1, min(len(own), room)).round().astype(int))
    shown = [own[place] for place in places] + floor
    share, ends = np.linspace(1 / _STEPS, 1, _STEPS), []
    for i, name in enumerate(shown):
        rows = part[part["_curve"] == name]
        colour, dashes = (GREY, "--") if name in floor else (COLOURS[i], DASHES[i])
        last, each = max(found[key][0][-1] for key in rows["key"]), []
        for key in rows["key"]:
            steps, history = found[key]
            if len(rows) > 1:
                axis.plot(steps, history, color=colour, linewidth=0.5, alpha=0.35, gid=key)
            # a search that ended before others keeps what it found
            each.append(np.interp(share * last, steps, np.where(np.isfinite(history), history, np.nan)))
        middle = pd.DataFrame(each).median().to_numpy()  # of those that are finite
        axis.plot(share * last, middle, color=colour, linestyle=dashes, gid=name)
        ends.append(labels.Name(name, last, middle[-1], colour))
    heights = np.concatenate([line.get_ydata() for line in axis.lines])
    heights = heights[np.isfinite(heights)]
    if 0 < 100 * heights.min() <= heights.max():  # in less, too few powers of ten to go by
        axis.set_yscale("log")
        axis.minorticks_off()
    axis.set_xlim(left=0)
    axis.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
    axis.set_xlabel("iterations")
    axis.margins(x=0)
    labels.at_ends(axis, ends, inches)
    return [name for name in own if name not in shown]

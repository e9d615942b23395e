"""The plot of measured attackers against what no attacker can pass: the trade-off curve of the release."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from dpbench import privacy
from dpbench.privacy.rounding import up, up_percent
from dpbench.protocol import Factorisation
from dpbench.report import escape
from dpbench.report.alike import said_of
from dpbench.report.naming import Naming
from dpbench.report.plots.axes import at_values, short
from dpbench.report.plots.registry import plot
from dpbench.report.plots.style import COLOURS, COLUMN, GREY, INK, MARKERS, MOST, SMALL, TEXT
from dpbench.report.plots.wrap import wrap
from dpbench.report.rows import has_exact_chance, is_floor, is_of_attack
from dpbench.report.successes import Successes, asked, choices, successes
from dpbench.report.summary import numbered
from dpbench.store import Store, schema
from dpbench.system.words import per_cent

_ATTACKERS = {
    "honest": "honest server",
    "malicious-linear": "malicious server",
    "fishing": "fishing server",
    "loki": "server that tells clients apart",
    "informed": "informed attacker",
}
_HIGH, _NAMES = 3.1, 0.95  # of the figure; beside the panel, for the names of curves, inches
_CURVE = ["noise_multiplier", "releases", "bands"]
_Curve = tuple[float, int, int]
_TICKS = (1e-4, 1e-3, 5e-3, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
_APART, _REACH = 0.02, 0.14  # of the width of the panel: between points of one chance; over all of them


@dataclass(frozen=True)
class Point:
    """One attacker under one noise, over all images or trials of one condition.

    Attributes:
        threat_model: whose it is.
        attack: the attack's name, and what tells its rows from others of it: settings, batch size, victim.
        curve: the noise multiplier, the number of releases, and how many of them share a draw of noise.
        chance: share that a blind choice is right in, exactly.
        successes: right answers.
    """

    threat_model: str
    attack: str
    curve: _Curve
    chance: float
    successes: Successes

    @property
    def share(self) -> float:
        """Of successes."""
        return self.successes.right / self.successes.asked


def points(table: pd.DataFrame) -> list[Point]:
    """Attackers of releases whose noise is known, where chance is exact.

    That is so for the informed attacker's candidates, for a frontier's ranks, and for the original in a
    gallery, unless the attacker knows the label and the gallery has images of others, or the statistics of
    the batch. Attackers who see the sample with a chance below 1 have another bound, and are left out.

    Args:
        table: per-image results, columns of `dpbench.store.columns`.
    """
    table = schema.conform(table)
    given = table["noise_multiplier"].notna() & table["eps_release"].notna()
    table = table[is_of_attack(table) & ~is_floor(table) & given & (table["inclusion"].fillna(1) == 1)]
    table = asked(table[has_exact_chance(table)])
    condition, attack = numbered(table).to_numpy(), _named_attacks(table)
    given = {"choices": choices(table), "_condition": condition, "_attack": attack}
    table = table.assign(**given, **_correlation(table))
    by = ["threat_model", "_attack", *_CURVE, "choices", "_condition"]
    found = []
    for (threat_model, attack, sigma, releases, bands, among, _), rows in table.groupby(by):
        if (counted := successes(rows)).asked:
            curve = float(sigma), int(releases), int(bands)
            found.append(Point(str(threat_model), attack, curve, 1 / float(among), counted))
    return found


def _named_attacks(table: pd.DataFrame) -> list[str]:
    """Of each row the attack with what differs beside the defence."""
    naming, several = Naming(table), table["batch_size"].nunique() > 1

    def name(row: Mapping[str, Any]) -> str:
        size = [f"batch of {row['batch_size']}"] if several else []
        return ", ".join([naming.attack(row), *size, *naming.heading(row, leave_out=("threat_model",))])

    return said_of(table, name)


def _alt(table: pd.DataFrame, store: Store | None) -> str:
    said = ["Trade-off curves of the release: the most that any attacker can be right, against chance."]
    for p in points(table):
        bound = up_percent(_bound(p.curve, p.chance))
        low, high = p.successes.interval()
        said.append(
            f"{_attacker(p)} ({p.attack}) at sigma {up(p.curve[0])}: {per_cent(p.share)} % "
            f"of {p.successes.asked} ({per_cent(low)} to {per_cent(high)} %), "
            f"chance {100 * p.chance:.3g} %, bound {bound}."
        )
    return " ".join(said)


@plot("tradeoff.png", title="Measured attackers and the trade-off curve of the release", alt=_alt)
def tradeoff(table: pd.DataFrame, store: Store | None = None, width: float = 6.5) -> Figure | None:
    """Draw success over chance: a trade-off curve 1 - f for each noise, and the measured attackers.

    A curve is that of the attacked release or releases, all other samples known: Phi(Phi^-1(x) + s / sigma).
    s is how far a sample moves them all: sqrt(T) for T of independent noise. A point has the colour of the
    curve that bounds it; bars are 95 % Clopper-Pearson intervals. A point whose whole bar lies above its
    curve is an error somewhere, and `exceedances` names it.

    Args:
        table: per-image results, columns of `dpbench.store.columns`.
        store: not needed.
        width: of the figure, inches.

    Returns:
        The figure; None where no attacker's chance against a known noise is exact.
    """
    found = points(table)
    if not found:
        return None
    every = sorted({p.curve for p in found}, key=_separation)
    curves = _told_apart(every, min(p.chance for p in found))
    figure = Figure(figsize=(width, _HIGH), layout="constrained")
    axis = figure.subplots()
    left = min(p.chance for p in found) / 3
    chances = np.geomspace(left, 1, 200)
    axis.set_xscale("log")
    axis.set(xlim=(left, 1), ylim=(-0.02, 1.02))
    ticks = [tick for tick in _TICKS if left <= tick <= 1]
    inches = width - 0.6 - (_NAMES + 0.5 if width > COLUMN else 0)
    at_values(axis, ticks, [f"{100 * tick:g} %" for tick in ticks], inches)
    axis.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    budgets = _budgets(table)
    for curve, colour in zip(reversed(curves), reversed(COLOURS[: len(curves)]), strict=True):
        bounds = [*(_bound(curve, x) for x in chances[:-1]), 1.0]
        axis.plot(chances, bounds, color=colour, label=_named(curve, budgets))
    axis.plot(chances, chances, color=GREY, linestyle="--", linewidth=1, label="blind choice")
    shown = [point for point in found if point.curve in curves]
    kinds = list(dict.fromkeys(_attacker(point) for point in shown))
    for point, place in zip(shown, _apart(shown, left), strict=True):
        _mark(
            axis, point, place, COLOURS[curves.index(point.curve)], MARKERS[kinds.index(_attacker(point)) % 5]
        )
    for kind, marker in zip(kinds, MARKERS, strict=False):
        axis.plot([], [], color=INK, marker=marker, linestyle="", label=kind)
    axis.set_xlabel(
        "chance of a blind choice (false positive rate)" if width > COLUMN else "chance (false positive rate)"
    )
    axis.set_ylabel("right with the release")
    said = "Curves: no attacker gets above; points: measured, 95 % intervals"
    said += f"; {len(curves)} of {len(every)} noises" if len(every) > len(curves) else ""
    axis.set_title(wrap(said, width - 0.3, TEXT))
    handles, words = axis.get_legend_handles_labels()
    words = [escape.matplotlib(wrap(word, _NAMES, SMALL)) for word in words]
    if width > COLUMN:
        figure.legend(handles, words, loc="outside right upper", frameon=False, handlelength=1.5)
    else:
        figure.set_figheight(_HIGH + 0.14 * -(-len(words) // 2))
        figure.legend(handles, words, loc="outside lower center", frameon=False, ncols=2, handlelength=1.5)
    return figure


def _told_apart(every: list[_Curve], chance: float) -> list[_Curve]:
    """Of many curves those whose heights at `chance` are spread most evenly."""
    if len(every) <= MOST:
        return every
    heights = np.array([_bound(curve, chance) for curve in every])
    wanted = np.linspace(heights.min(), heights.max(), MOST)
    return [every[i] for i in sorted({int(np.abs(heights - height).argmin()) for height in wanted})]


def _bound(curve: _Curve, chance: float) -> float:
    return privacy.reconstruction_bound(1 / _separation(curve), kappa=chance)


def _separation(curve: _Curve) -> float:
    sigma, releases, bands = curve
    return Factorisation(releases, bands).sensitivity() / sigma


def _correlation(table: pd.DataFrame) -> dict[str, pd.Series]:
    """Releases and bands of each row; 1 where a table does not say."""
    return {name: table[name].fillna(1) for name in ("releases", "bands")}


def _budgets(table: pd.DataFrame) -> dict[_Curve, float]:
    """Epsilon of the release by noise, number of releases and bands, the largest of several deltas.

    A release that the sample is in with a chance below 1 has a smaller one, and another curve.
    """
    table = schema.conform(table)
    table = table[table["inclusion"].fillna(1) == 1]
    by = table.assign(**_correlation(table)).groupby(_CURVE)["eps_release"].max()
    return {(float(sigma), int(releases), int(bands)): eps for (sigma, releases, bands), eps in by.items()}


def _named(curve: _Curve, budgets: dict[_Curve, float]) -> str:
    sigma, count, bands = curve
    releases = f", {count} releases" if count > 1 else ""
    releases += f", {bands} bands" if min(count, bands) > 1 else ""
    return f"σ {short(sigma)}{releases}, ε {short(budgets[curve])}"


def _attacker(point: Point) -> str:
    return _ATTACKERS.get(point.threat_model, point.threat_model)


def _apart(found: list[Point], left: float) -> list[float]:
    """Where each point is drawn: at its chance, and beside others of the same chance, not far from it."""
    places = []
    for i, point in enumerate(found):
        same = [j for j, other in enumerate(found) if other.chance == point.chance]
        step = left ** -min(_APART, _REACH / len(same))  # a share of the panel's width, as it ends at 1
        places.append(point.chance * step ** (same.index(i) - (len(same) - 1) / 2))
    return places


def _mark(axis: Axes, point: Point, place: float, colour: str, marker: str) -> None:
    low, high = point.successes.interval()
    axis.errorbar(
        place,
        point.share,
        yerr=np.clip([[point.share - low], [high - point.share]], 0, None),
        color=colour,
        marker=marker,
        markeredgecolor="white",
        markeredgewidth=0.6,
        markersize=6,
        elinewidth=1,
        capsize=2,
        clip_on=False,
        zorder=3,
        gid=f"{point.threat_model} {point.attack} {point.curve[0]:g}",
    )

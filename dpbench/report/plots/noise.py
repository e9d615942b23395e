"""The plot of leakage against the noise itself, with both epsilons, and where the frontiers lie."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.special import ndtri

from dpbench.privacy.rounding import up
from dpbench.protocol import Factorisation
from dpbench.report import escape
from dpbench.report.alike import said_of
from dpbench.report.naming import Naming, number
from dpbench.report.plots import labels
from dpbench.report.plots.axes import at_values, short, span
from dpbench.report.plots.frontier import stored
from dpbench.report.plots.registry import plot
from dpbench.report.plots.style import COLOURS, COLUMN, GREY, INK, MARKERS, MOST, TEXT
from dpbench.report.plots.wrap import wrap
from dpbench.report.rows import is_defended, is_floor, is_informed, is_of_attack, only_labels, ordered
from dpbench.store import Store, schema

CEILING = 60
"""PSNR from which on images are the same to the eye, dB: more is drawn there."""
PRIORS = (0.1, 1 / 200)
"""Chances of a blind guess for which the certified frontier is marked."""
MARGIN = 0.05
"""What the certified frontier leaves the attacker above the prior."""
_METRICS = {"psnr": "PSNR, dB (up: leaks more)", "lpips": "LPIPS (down: leaks more)"}
_EPSILONS = {"eps_release": "ε of the release", "eps": "of the training"}
_TRIANGLE = {"max": "^", "min": "v"}
_HIGH, _PANEL, _NAMES = 2.6, 1.5, 1.15  # of a panel with its scales and without; for names beside it; inches
_FAR = 10  # a certified frontier further than that from the largest noise tried is not drawn


def _alt(table: pd.DataFrame, store: Store | None) -> str:
    part = _noisy(schema.conform(table))
    part = _with_curves(ordered(part, batch_last=True), Naming(part))
    part = part[part["noise_multiplier"] > 0]
    said = ["Leakage against the noise multiplier sigma."]
    for curve in _most_leaking(part)[:MOST]:
        for sigma, rows in part[part["_curve"] == curve].groupby("noise_multiplier"):
            median, most = (number(rows["psnr"].agg(each), ".1f") for each in ("median", "max"))
            said.append(f"{curve}, sigma {up(sigma)}: median PSNR {median} dB, highest {most} dB.")
    return " ".join(said)


@plot("noise.png", title="Leakage against the noise", alt=_alt)
def noise(table: pd.DataFrame, store: Store | None = None, width: float = 6.5) -> Figure | None:
    """Draw PSNR and LPIPS over sigma: medians, the middle 80 % of images, and the most exposed image.

    Both epsilons stand on the upper axis. The undefended attack is drawn at the left. Dashed lines are the
    medians of each curve's best floor, grey where curves share it. Vertical lines are the certified
    frontiers, sigma = s / (Phi^-1(kappa + .05) - Phi^-1(kappa)); s is how far a sample moves all releases:
    sqrt(T) for T of independent noise. The run's own measured frontier is shaded.

    Args:
        table: per-image results, columns of `dpbench.store.columns`.
        store: the run's folder, for its measured frontier.
        width: of the figure, inches.

    Returns:
        The figure; None where fewer than two noise levels were attacked.
    """
    table = _noisy(schema.conform(table))
    table = _with_curves(ordered(table, batch_last=True), Naming(table))
    private = table[table["noise_multiplier"] > 0]
    if private["noise_multiplier"].nunique() < 2:
        return None
    metrics = [metric for metric in _METRICS if private[metric].notna().any()]
    curves = _most_leaking(private)
    shown = curves[:MOST]
    across = len(metrics) if width > COLUMN else 1
    down = len(metrics) // across
    beside = len(shown) > 1 and labels.fit(shown, _NAMES, _PANEL)
    room = _NAMES if beside else 0.0
    figure = Figure(figsize=(width, down * _HIGH + 0.5), layout="constrained")
    inches = (width - room) / across - 0.6
    panels = list(figure.subplots(down, across, squeeze=False).flat)
    for axis, metric in zip(panels, metrics, strict=True):
        drawn = table[table["_curve"].isin(shown) | table["_base"].isin(private["_base"])]
        ends = _panel(axis, drawn, metric, shown)
        _scale(axis, private, inches, top=axis in panels[:across], bottom=axis in panels[-across:])
        _frontiers(axis, private, store)
        if room and (across == 1 or axis is panels[-1]):
            labels.at_ends(axis, ends, room)
    if len(shown) > 1 and not beside:
        labels.below(
            figure, {c: {"color": COLOURS[i], "marker": MARKERS[i]} for i, c in enumerate(shown)}, width
        )
    left_out = f"; {len(shown)} of {len(curves)} settings, the most leaking" if len(curves) > MOST else ""
    said = f"Line: median, band: 80 % of images, triangle: most exposed image{_marks(panels[0])}{left_out}"
    figure.suptitle(escape.matplotlib(wrap(said, width - 0.2, TEXT)))
    labels.spread(figure)
    return figure


def _most_leaking(private: pd.DataFrame) -> list[str]:
    """Names of the curves, those of the highest median PSNR first."""
    leaks = private["psnr"].fillna(-math.inf).groupby(private["_curve"]).median()
    return list(leaks.sort_values(ascending=False, kind="stable").index)


def _noisy(table: pd.DataFrame) -> pd.DataFrame:
    """Attacks on images, undefended or with noise of a known multiplier."""
    table = table[is_of_attack(table) & ~is_floor(table) & ~is_informed(table) & ~only_labels(table)]
    return table[~is_defended(table) | (table["noise_multiplier"] > 0)]


def _with_curves(table: pd.DataFrame, naming: Naming) -> pd.DataFrame:
    """`table` with `_base`, what an undefended row shares with defended ones, and `_curve`."""
    several = table["batch_size"].nunique() > 1

    def base_of(row: Mapping[str, Any]) -> str:
        size = [f"batch of {row['batch_size']}"] if several else []
        return ", ".join([naming.attack({**row, "adaptive": True}), *size, *naming.heading(row)])

    bases = said_of(table, base_of)
    beside = said_of(table, lambda row: _beside(row, naming))
    defended = {each for each in beside if each}
    names = [
        f"{base}, {each}" if each and len(defended) > 1 else base
        for base, each in zip(bases, beside, strict=True)
    ]
    return table.assign(_base=bases, _curve=[n if b else "" for n, b in zip(names, beside, strict=True)])


def _beside(row: Mapping[str, Any], naming: Naming) -> str:
    """The defence without its noise, and whether the attack knows of it; nothing where there is none."""
    if pd.isna(row["noise_multiplier"]):
        return ""
    adapted = pd.isna(row["adaptive"]) or row["adaptive"]
    # how an epsilon was computed is nothing of the noise
    return naming.defence(row, eps=False, leave_out=("accountant",)) + (
        "" if adapted else ", attack not adaptive"
    )


def _panel(axis: Axes, table: pd.DataFrame, metric: str, curves: list[str]) -> list[labels.Name]:
    """The curves of one metric; the names of their ends."""
    table = table[table[metric].notna()].assign(**{metric: lambda rows: rows[metric].clip(upper=CEILING)})
    sigmas = table.loc[table["noise_multiplier"] > 0, "noise_multiplier"]
    bare = sigmas.min() / span(sigmas)
    worst = "max" if metric == "psnr" else "min"
    ends = []
    for i, curve in enumerate(curves):
        rows = table[table["_curve"] == curve]
        if rows.empty:
            continue
        colour, marker = COLOURS[i], MARKERS[i]
        by = rows.groupby("noise_multiplier")[metric]
        median, exposed = by.median(), by.agg(worst)
        axis.fill_between(median.index, by.quantile(0.1), by.quantile(0.9), color=colour, alpha=0.15, lw=0)
        axis.plot(median.index, median, color=colour, marker=marker, gid=curve)
        peak = {"marker": _TRIANGLE[worst], "linestyle": "", "markersize": 4, "markerfacecolor": "none"}
        axis.plot(exposed.index, exposed, color=colour, gid=f"{curve}: most exposed", **peak)
        undefended = table[(table["_base"] == rows["_base"].iloc[0]) & (table["_curve"] == "")][metric]
        if len(undefended):
            axis.plot(bare, undefended.median(), color=colour, marker=marker, gid=f"{curve}: no defence")
            axis.plot(bare, undefended.agg(worst), color=colour, **peak)
        ends.append(labels.Name(curve, median.index[-1], median.iloc[-1], colour))
    drawn = table[table["_curve"].isin(curves)]
    floors = drawn.groupby("_curve")[f"{metric}_floor"].median().dropna()
    for floor, its in floors.groupby(floors):  # an attack's own colour where the floor is its alone
        colour = COLOURS[curves.index(its.index[0])] if len(its) == 1 < len(floors) else GREY
        axis.axhline(floor, color=colour, linestyle="--", linewidth=1, gid="floor")
    beyond = bool((table[metric] == CEILING).any())
    axis.set_ylabel(f"{_METRICS[metric]}\n{CEILING}: or more" if beyond else _METRICS[metric])
    return ends


def _scale(axis: Axes, private: pd.DataFrame, inches: float, *, top: bool, bottom: bool) -> None:
    """Sigma below; above it the epsilons of release and training, of several of one sigma the largest."""
    noises = private.groupby("noise_multiplier")[["eps_release", "eps"]].max()
    sigmas, gap = list(noises.index), span(noises.index)
    bare = sigmas[0] / gap
    axis.set_xscale("log")
    marks = [sigma for sigma in _certified(private).values() if sigma <= _FAR * sigmas[-1]]
    axis.set_xlim(bare / gap**0.5, max([sigmas[-1], *marks]) * gap**0.5)
    at_values(axis, sigmas, [short(sigma) for sigma in sigmas], inches, also=(bare, "no\ndefence"))
    axis.tick_params(labelbottom=bottom)
    if bottom:
        axis.set_xlabel("noise multiplier σ")
    known = [name for name in ("eps_release", "eps") if noises[name].notna().all()]
    if not known or not top:
        return
    upper = axis.secondary_xaxis("top")
    upper.set_xlim(axis.get_xlim())
    names = ["\n".join(short(value) for value in row) for row in noises[known].to_numpy()]
    at_values(upper, sigmas, names, inches)
    upper.set_xlabel(" / ".join(_EPSILONS[name] for name in known))


def _certified(private: pd.DataFrame) -> dict[float, float]:
    """Prior to the sigma from which on nobody gets more than `MARGIN` above it, by whatever was released."""
    released = private[["releases", "bands"]].fillna(1).drop_duplicates().itertuples(index=False)
    moved = max(Factorisation(int(count), int(bands)).sensitivity() for count, bands in released)
    return {k: moved / float(ndtri(k + MARGIN) - ndtri(k)) for k in PRIORS}


def _frontiers(axis: Axes, private: pd.DataFrame, store: Store | None) -> None:
    """Certified ones as lines; the measured one of the run's folder as what is shaded."""
    left, right = axis.get_xlim()
    for prior, sigma in _certified(private).items():
        if left < sigma < right:
            axis.axvline(sigma, color=INK, linestyle=":", linewidth=1, gid=f"certified {prior:g}")
    found = [each for each in stored(store) if each["threat_model"] in set(private["threat_model"])]
    if len(found) != 1:
        return
    for end, until, grey in (("leak_up_to", left, "0.85"), ("none_from", right, "0.94")):
        if found[0][end] is not None:
            sigma = found[0][end]["sigma"]
            axis.axvspan(*sorted((sigma, until)), color=grey, zorder=0, linewidth=0, gid=end)


def _marks(axis: Axes) -> str:
    """What the other lines drawn in a panel are, and what is shaded; frontiers from the left."""
    lines = [line for line in axis.lines if str(line.get_gid()).startswith("certified")]
    priors = [
        line.get_gid().removeprefix("certified ") for line in sorted(lines, key=lambda x: x.get_xdata()[0])
    ]
    said = "; dashed: best floor" if any(line.get_gid() == "floor" for line in axis.lines) else ""
    said += f"; dotted: certified frontier, prior {' and '.join(priors)}" if priors else ""
    shaded = {patch.get_gid() for patch in axis.patches}
    said += "; dark: leak shown" if "leak_up_to" in shaded else ""
    return said + ("; light: none seen by these attacks" if "none_from" in shaded else "")

"""The plot of what each attacker gets against the budget of the release, and what no attacker can pass."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from dpbench import privacy
from dpbench.privacy.intervals import clopper_pearson
from dpbench.report import escape
from dpbench.report.plots.axes import at_values
from dpbench.report.plots.colours import OKABE_ITO
from dpbench.report.plots.registry import plot
from dpbench.report.plots.style import COLUMN, FULL, SMALL
from dpbench.report.plots.wrap import width as width_of
from dpbench.report.plots.wrap import wrap
from dpbench.report.rows import ended_well, has_exact_chance, is_floor
from dpbench.report.summary import pooled
from dpbench.store import Store, schema

_ATTACKERS = {
    "honest": "honest server, image identified",
    "malicious-linear": "malicious server, image identified",
    "informed": "informed attacker, sample picked",
}
_STYLES = ("-", "--", ":", "-.")
_SHAPES = "so^Dv*"
_FILLS = ("full", "none", "left", "top")
_HIGH, _SCALE, _HANDLE = 3.4, 0.6, 0.7  # a panel; beside it, for its scale; beside a legend's text; inches
_CURVE = ["threat_model", "releases", "inclusion", "choices"]
"""What a curve is of; `choices` are the candidates or the images in the gallery."""


def _alt(table: pd.DataFrame, store: Store | None) -> str:
    said = ["Success over the epsilon of the release, by threat model."]
    for row in curves(_attacks(schema.conform(table))).to_dict("records"):
        known = _ATTACKERS.get(row["threat_model"], row["threat_model"])
        share = 100 * row["right"] / row["trials"]
        said.append(f"{known}, epsilon {row['eps_release']:.3g}: {share:.0f} % of {row['trials']}.")
    return " ".join(said)


@plot("threats.png", title="What each threat model gets", alt=_alt)
def threats(table: pd.DataFrame, store: Store | None = None, width: float = FULL) -> Figure | None:
    """Draw success over eps_release: a curve per threat model, releases and inclusion, its strongest attack.

    Honest and malicious servers succeed where the reconstruction identifies its original in the gallery, the
    informed attacker where it picks the right candidate. Every point stands at its own epsilon; bars are 95 %
    Clopper-Pearson intervals. Black lines are the ReRo bound, one for each prior (the chance of a blind
    choice), grey ones that on a sample whose inclusion is drawn; dotted lines are chance. One panel per batch
    size.

    Args:
        table: per-image results, columns of `dpbench.store.columns`.
        store: not needed.
        width: of the figure, inches.

    Returns:
        The figure; None where there are fewer than two budgets or nobody but the honest server.
    """
    table = _attacks(schema.conform(table))
    if set(table["threat_model"].dropna()) <= {"honest"} or table["eps_release"].nunique() < 2:
        return None
    sizes = sorted(table["batch_size"].unique())
    figure = Figure(figsize=(width, 3.9 * len(sizes)), layout="constrained")
    panels = figure.subplots(len(sizes), 1, squeeze=False)[:, 0]
    for axis, size in zip(panels, sizes, strict=True):
        _panel(axis, table[table["batch_size"] == size], width - _SCALE)
        axis.set_title(f"batch of {size}")
    entries = {
        label: handle
        for axis in panels
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    words = [wrap(label, width - _HANDLE - 0.2, SMALL) for label in entries]
    ncols = 2 if 2 * (max(width_of(word, SMALL) for word in words) + _HANDLE) < width else 1
    lines = sum(word.count("\n") + 1 for word in words) / ncols
    high = _HIGH if width > COLUMN else 0.8 * _HIGH
    figure.set_figheight(high * len(sizes) + 0.3 + 0.15 * math.ceil(lines))
    words = [escape.matplotlib(word) for word in words]
    figure.legend(entries.values(), words, loc="outside lower center", ncols=ncols, frameon=False)
    return figure


def _attacks(table: pd.DataFrame) -> pd.DataFrame:
    private = table["eps_release"].notna() & has_exact_chance(table)
    return table[ended_well(table) & ~is_floor(table) & private]


def curves(table: pd.DataFrame) -> pd.DataFrame:
    """Successes and trials by threat model, releases, inclusion, choices and budget, of the strongest attack.

    Args:
        table: rows of attacks that ended well, with an eps_release.

    Returns:
        `threat_model`, `releases`, `inclusion`, `choices`, `eps_release`, `attack`, `right`, `trials` and the
        informed attacker's `bound`.
    """
    curve = [*_CURVE, "eps_release"]
    by = [*curve, "attack", "adaptive", "prior"]
    table = table.assign(
        inclusion=table["inclusion"].fillna(1.0), choices=table["candidates"].fillna(table["gallery_size"])
    )
    found = []
    for key, rows in table.groupby(by, dropna=False):
        right, trials = pooled(rows)
        counted = {"right": right, "trials": trials, "bound": rows["success_bound"].max()}
        found.append(dict(zip(by, key, strict=True)) | counted)
    counted = pd.DataFrame(found)
    counted = counted[counted["trials"] > 0]
    share = counted["right"] / counted["trials"]
    best = share.groupby([counted[name] for name in curve], dropna=False).idxmax()
    return counted.loc[best].sort_values(curve, ignore_index=True)


def _panel(axis: Axes, table: pd.DataFrame, inches: float) -> None:
    found = curves(table)
    settings = sorted({*zip(found["releases"], found["inclusion"], strict=True)})
    attackers = [*dict.fromkeys([*_ATTACKERS, *sorted(found["threat_model"].unique())])]
    choices = [int(n) for n in sorted(found["choices"].dropna().unique())]
    for (threat_model, *setting, among), rows in found.groupby(_CURVE, dropna=False):
        i = settings.index(tuple(setting)) % len(_STYLES)
        said = _setting(*setting) if len(settings) > 1 else ""
        said += f", out of {among:g}" if len(choices) > 1 and not pd.isna(among) else ""
        known = _ATTACKERS.get(threat_model, f"{threat_model}, right choice")
        _curve(axis, rows, attackers.index(threat_model) % len(OKABE_ITO), i, known + said)
        if setting[1] < 1:
            axis.plot(
                rows["eps_release"],
                rows["bound"],
                color="0.5",
                linestyle=_STYLES[i],
                linewidth=1,
                label=f"no attacker passes{said}",
            )
    delta = float(table["delta"].dropna().iloc[0])
    budgets = np.geomspace(table["eps_release"].min(), table["eps_release"].max(), 80)
    for i, among in enumerate(choices):
        bounds = [
            privacy.reconstruction_bound(privacy.noise_multiplier(float(eps), delta), kappa=1 / among)
            for eps in budgets
        ]
        style = {"color": "black", "linestyle": _STYLES[i % len(_STYLES)], "linewidth": 1}
        axis.plot(budgets, bounds, label=f"no attacker passes (prior 1/{among})", **style)
        axis.axhline(1 / among, color="0.5", linestyle=":", linewidth=0.8, label=f"chance, 1/{among}")
    _dress(axis, table["eps_release"], delta, inches)


def _curve(axis: Axes, rows: pd.DataFrame, attacker: int, i: int, label: str) -> None:
    share = (rows["right"] / rows["trials"]).to_numpy()
    pairs = rows[["right", "trials"]].itertuples(index=False)
    low, high = np.array([clopper_pearson(*pair) for pair in pairs]).T
    axis.errorbar(
        rows["eps_release"],
        share,
        yerr=np.clip((share - low, high - share), 0, None),
        color=OKABE_ITO[attacker],
        marker=_SHAPES[attacker],
        fillstyle=_FILLS[i],
        linestyle=_STYLES[i],
        alpha=0.8,  # curves stand at the same places
        elinewidth=0.7,
        capsize=2,
        label=label,
    )


def _dress(axis: Axes, budgets: pd.Series, delta: float, inches: float) -> None:
    axis.set_xscale("log")
    if budgets.max() < 100 * budgets.min():  # too few powers of ten to go by
        ticks = sorted({float(f"{eps:.3g}") for eps in budgets})
        at_values(axis, ticks, [f"{eps:g}" for eps in ticks], inches)
    axis.set_ylim(-0.03, 1.03)
    axis.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    axis.set_xlabel(f"ε of the attacked release(s), δ={delta:g}")
    axis.set_ylabel("successes")


def _setting(releases: int, inclusion: float) -> str:
    text = f", {releases} release{'s' if releases > 1 else ''}"
    return text if inclusion == 1 else f"{text}, each with chance {inclusion:g}"

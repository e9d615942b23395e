"""The plot of what each attacker gets against the budget of the release, and what no attacker can pass."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dpbench import privacy
from dpbench.privacy.intervals import clopper_pearson
from dpbench.report import escape
from dpbench.report.plots.colours import OKABE_ITO
from dpbench.report.plots.registry import plot
from dpbench.report.plots.wrap import width, wrap
from dpbench.report.rows import ended_well, is_floor
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
_SMALL, _WIDE = 8, 6.5  # size of the font, points; width of the figure, inches
_HANDLE = 0.9  # beside a legend's text, inches
_CURVE = ["threat_model", "releases", "inclusion", "choices"]
"""What a curve is of; `choices` are the candidates or the images in the gallery."""


@plot("threats.png")
def threats(table: pd.DataFrame, store: Store | None = None) -> Figure | None:
    """Draw success over eps_release: a curve per threat model, releases and inclusion, its strongest attack.

    Honest and malicious servers succeed where the reconstruction identifies its original in the gallery, the
    informed attacker where it picks the right candidate. Every point stands at its own epsilon; bars are 95 %
    Clopper-Pearson intervals. Black lines are the ReRo bound, one for each prior (the chance of a blind
    choice), grey ones that on a sample whose inclusion is drawn; dotted lines are chance. One panel per batch
    size.

    Args:
        table: per-image results, columns of `dpbench.store.columns`.
        store: not needed.

    Returns:
        The figure; None where there are fewer than two budgets or nobody but the honest server.
    """
    table = schema.conform(table)
    table = table[ended_well(table) & ~is_floor(table) & table["eps_release"].notna()]
    if set(table["threat_model"].dropna()) <= {"honest"} or table["eps_release"].nunique() < 2:
        return None
    sizes = sorted(table["batch_size"].unique())
    figure = Figure(figsize=(_WIDE, 3.9 * len(sizes)), layout="constrained")
    panels = figure.subplots(len(sizes), 1, squeeze=False)[:, 0]
    for axis, size in zip(panels, sizes, strict=True):
        _panel(axis, table[table["batch_size"] == size])
        axis.set_title(f"batch of {size}", fontsize=9)
    entries = {
        label: handle
        for axis in panels
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    words = [escape.matplotlib(wrap(label, _WIDE - 1, _SMALL)) for label in entries]
    ncols = 2 if 2 * (max(width(label, _SMALL) for label in entries) + _HANDLE) < _WIDE else 1
    figure.set_figheight(3.6 * len(sizes) + 0.6 + 0.18 * -(-len(words) // ncols))
    figure.legend(entries.values(), words, loc="outside lower center", ncols=ncols, fontsize=_SMALL)
    return figure


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


def _panel(axis: Axes, table: pd.DataFrame) -> None:
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
    _dress(axis, table["eps_release"], delta)


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
        markersize=5,
        linewidth=1.2,
        elinewidth=0.7,
        capsize=2,
        label=label,
    )


def _dress(axis: Axes, budgets: pd.Series, delta: float) -> None:
    axis.set_xscale("log")
    if budgets.max() < 100 * budgets.min():  # too few powers of ten to go by
        ticks = sorted({float(f"{eps:.3g}") for eps in budgets})
        axis.set_xticks(ticks, [f"{eps:g}" for eps in ticks])
        axis.minorticks_off()
    axis.set_ylim(-0.03, 1.03)
    axis.set_xlabel(f"ε of the attacked release(s), δ={delta:g}", fontsize=_SMALL)
    axis.set_ylabel("share of successes", fontsize=_SMALL)
    axis.tick_params(labelsize=_SMALL)


def _setting(releases: int, inclusion: float) -> str:
    text = f", {releases} release{'s' if releases > 1 else ''}"
    return text if inclusion == 1 else f"{text}, each with chance {inclusion:g}"

"""The plot of what each attacker gets against the budget of the release, and what no attacker can pass."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dpbench import privacy
from dpbench.cell.grid import THREAT_MODELS
from dpbench.privacy.intervals import clopper_pearson
from dpbench.report.labels import is_floor
from dpbench.report.plots.colours import OKABE_ITO
from dpbench.report.summary import pooled
from dpbench.store import schema

_COLOURS = dict(zip(THREAT_MODELS, OKABE_ITO, strict=False))
_MARKERS, _STYLES = "os^D", ("-", "--", ":", "-.")
_APART = 1.07  # what neighbouring curves are moved by, so that their bars do not hide each other
_DEEDS = {
    "honest": "honest server, image identified",
    "malicious-linear": "malicious server, image identified",
    "informed": "informed attacker, sample picked",
}


def threats(table: pd.DataFrame) -> Figure | None:
    """Draw success over eps_release: a curve per threat model, releases and inclusion, its strongest attack.

    Honest and malicious servers succeed where the reconstruction identifies its original in the gallery, the
    informed attacker where it picks the right candidate. Bars are 95 % Clopper-Pearson intervals; the black
    line is the ReRo bound on the informed attacker (a grey one that on a sample whose inclusion is drawn),
    dotted lines are chance. One panel per batch size.

    Args:
        table: per-image results, columns of `dpbench.store.columns`.

    Returns:
        The figure; None where there are fewer than two budgets or nobody but the honest server.
    """
    table = schema.conform(table)
    table = table[(table["status"].fillna("ok") == "ok") & ~is_floor(table) & table["eps_release"].notna()]
    if set(table["threat_model"].dropna()) <= {"honest"} or table["eps_release"].nunique() < 2:
        return None
    sizes = sorted(table["batch_size"].unique())
    figure = Figure(figsize=(6.5, 3.6 * len(sizes) + 0.9), layout="constrained")
    panels = figure.subplots(len(sizes), 1, squeeze=False)[:, 0]
    for axis, size in zip(panels, sizes, strict=True):
        _panel(axis, table[table["batch_size"] == size])
        axis.set_title(f"batch of {size}", fontsize=9)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize=8)
    return figure


def curves(table: pd.DataFrame) -> pd.DataFrame:
    """Successes and trials by threat_model, releases, inclusion and eps_release, of the strongest attack.

    Args:
        table: rows of attacks that ended well, with an eps_release.

    Returns:
        Those four columns, `attack`, `right`, `trials` and the informed attacker's `bound`.
    """
    by = ["threat_model", "releases", "inclusion", "eps_release", "attack", "adaptive", "prior"]
    table = table.assign(inclusion=table["inclusion"].fillna(1.0))
    found = []
    for key, rows in table.groupby(by, dropna=False):
        right, trials = pooled(rows)
        counted = {"right": right, "trials": trials, "bound": rows["success_bound"].max()}
        found.append(dict(zip(by, key, strict=True)) | counted)
    counted = pd.DataFrame(found)
    counted = counted[counted["trials"] > 0]
    share = counted["right"] / counted["trials"]
    best = share.groupby([counted[name] for name in by[:4]]).idxmax()
    return counted.loc[best].sort_values(by[:4], ignore_index=True)


def _panel(axis: Axes, table: pd.DataFrame) -> None:
    found = curves(table)
    settings = sorted({*zip(found["releases"], found["inclusion"], strict=True)})
    each = found.groupby(["threat_model", "releases", "inclusion"])
    for place, ((threat_model, *setting), rows) in enumerate(each):
        i = settings.index(tuple(setting)) % len(_STYLES)
        share = (rows["right"] / rows["trials"]).to_numpy()
        low, high = np.array(
            [clopper_pearson(*pair) for pair in rows[["right", "trials"]].itertuples(index=False)]
        ).T
        label = _DEEDS[threat_model] + (_setting(*setting) if len(settings) > 1 else "")
        budgets = rows["eps_release"] * _APART ** (place - (len(each) - 1) / 2)
        axis.errorbar(
            budgets,
            share,
            yerr=(share - low, high - share),
            color=_COLOURS[threat_model],
            marker=_MARKERS[i],
            linestyle=_STYLES[i],
            markersize=4,
            linewidth=1.2,
            elinewidth=0.7,
            capsize=2,
            label=label,
        )
        if setting[1] < 1:
            axis.plot(
                budgets,
                rows["bound"],
                color="0.5",
                linestyle=_STYLES[i],
                linewidth=1,
                label=f"no attacker passes{_setting(*setting)}",
            )
    budgets = np.geomspace(table["eps_release"].min(), table["eps_release"].max(), 80)
    delta = float(table["delta"].dropna().iloc[0])
    for candidates in sorted(table["candidates"].dropna().unique()) or [round(1 / privacy.PRIOR_SUCCESS)]:
        bounds = [
            privacy.reconstruction_bound(privacy.noise_multiplier(float(eps), delta), kappa=1 / candidates)
            for eps in budgets
        ]
        axis.plot(
            budgets, bounds, color="black", linewidth=1, label=f"no attacker passes (prior 1/{candidates})"
        )
    for size in sorted(set(table["gallery_size"].dropna()) | set(table["candidates"].dropna())):
        axis.axhline(1 / size, color="0.5", linestyle=":", linewidth=0.8, label=f"chance, 1/{size}")
    axis.set_xscale("log")
    if table["eps_release"].max() < 100 * table["eps_release"].min():  # too few powers of ten to go by
        axis.set_xticks(budgets := sorted({float(f"{eps:.3g}") for eps in table["eps_release"]}))
        axis.set_xticklabels([f"{eps:g}" for eps in budgets])
        axis.minorticks_off()
    axis.set_ylim(-0.03, 1.03)
    axis.set_xlabel(f"ε of the attacked release(s), δ={delta:g}", fontsize=8)
    axis.set_ylabel("share of successes", fontsize=8)
    axis.tick_params(labelsize=8)


def _setting(releases: int, inclusion: float) -> str:
    text = f", {releases} release{'s' if releases > 1 else ''}"
    return text if inclusion == 1 else f"{text}, each with chance {inclusion:g}"

"""The plot of what each attacker gets against the budget of the release, and what no attacker can pass."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dpbench import privacy, schema
from dpbench.grid import THREAT_MODELS
from dpbench.intervals import clopper_pearson
from dpbench.report.labels import is_floor
from dpbench.report.summary import pooled

_COLOURS = dict(zip(THREAT_MODELS, ("#0072B2", "#D55E00", "#009E73"), strict=True))
_MARKERS, _STYLES = "os^D", ("-", "--", ":", "-.")
_DEEDS = {
    "honest": "honest server, image identified",
    "malicious-linear": "malicious server, image identified",
    "informed": "informed attacker, sample picked",
}


def threats(table: pd.DataFrame) -> Figure | None:
    """Draw success over eps_release: one curve per threat model and number of releases, its strongest attack.

    Honest and malicious servers succeed where the reconstruction identifies its original in the gallery, the
    informed attacker where it picks the right candidate. Bars are 95 % Clopper-Pearson intervals; the black
    line is the ReRo bound on the informed attacker, dotted lines are chance. One panel per batch size.

    Args:
        table: per-image results, columns of `dpbench.schema.SCHEMA`.

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
    """Successes and trials by threat_model, releases and eps_release, of the attack that succeeds most.

    Args:
        table: rows of attacks that ended well, with an eps_release.

    Returns:
        Those three columns, `attack`, `right` and `trials`.
    """
    by = ["threat_model", "releases", "eps_release", "attack", "adaptive", "prior"]
    found = [
        dict(zip(by, key, strict=True)) | dict(zip(("right", "trials"), pooled(rows), strict=True))
        for key, rows in table.groupby(by, dropna=False)
    ]
    counted = pd.DataFrame(found)
    counted = counted[counted["trials"] > 0]
    share = counted["right"] / counted["trials"]
    best = share.groupby([counted[name] for name in by[:3]]).idxmax()
    return counted.loc[best].sort_values(by[:3], ignore_index=True)


def _panel(axis: Axes, table: pd.DataFrame) -> None:
    found = curves(table)
    repeats = sorted(found["releases"].unique())
    for (threat_model, releases), rows in found.groupby(["threat_model", "releases"]):
        i = repeats.index(releases) % len(_STYLES)
        share = (rows["right"] / rows["trials"]).to_numpy()
        low, high = np.array(
            [clopper_pearson(*pair) for pair in rows[["right", "trials"]].itertuples(index=False)]
        ).T
        label = _DEEDS[threat_model] + (f", {releases} releases" if len(repeats) > 1 else "")
        axis.errorbar(
            rows["eps_release"],
            share,
            yerr=(share - low, high - share),
            color=_COLOURS[threat_model],
            marker=_MARKERS[i],
            linestyle=_STYLES[i],
            markersize=4,
            linewidth=1.2,
            elinewidth=0.7,
            capsize=2,
            label=label.replace("1 releases", "1 release"),
        )
    budgets = np.geomspace(table["eps_release"].min(), table["eps_release"].max(), 80)
    delta = float(table["delta"].dropna().iloc[0])
    for candidates in sorted(table["candidates"].dropna().unique()) or [round(1 / privacy.PRIOR)]:
        bounds = [
            privacy.reconstruction_bound(privacy.noise_multiplier(float(eps), delta), kappa=1 / candidates)
            for eps in budgets
        ]
        axis.plot(
            budgets, bounds, color="black", linewidth=1, label=f"no attacker passes (prior 1/{candidates})"
        )
    for size in sorted(set(table["gallery_size"].dropna()) | set(table["candidates"].dropna())):
        axis.axhline(1 / size, color="0.5", linestyle=":", linewidth=0.8)
    axis.set_xscale("log")
    axis.set_ylim(-0.03, 1.03)
    axis.set_xlabel(f"ε of the attacked release(s), δ={delta:g}", fontsize=8)
    axis.set_ylabel("share of successes", fontsize=8)
    axis.tick_params(labelsize=8)

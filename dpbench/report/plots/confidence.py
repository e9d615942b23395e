"""The plot of which images leak: what was recovered of each, by its loss and its share of the gradient."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.stats import spearmanr

from dpbench.report import escape
from dpbench.report.naming import Naming
from dpbench.report.plots.colours import OKABE_ITO
from dpbench.report.plots.registry import plot
from dpbench.report.plots.wrap import wrap
from dpbench.report.rows import ended_well, is_floor, only_labels, ordered
from dpbench.store import Store, schema

MOST_ROWS, MOST_CURVES = 4, 12
"""Victims, and curves in all, at most; the title says what was left out."""
FEWEST = 4
"""Images from which on a rank correlation is worth a number."""
LEAST_LOSS = 1e-6
"""Nats at which smaller losses are drawn; single precision makes some of them zero."""
_SIGNS = {
    "image_loss": "the victim's loss on the image (nat)",
    "image_grad_share": "the image's share of the gradient norm",
}
_RECOVERED = {"lpips": "LPIPS (lower leaks more)", "psnr": "PSNR, dB (higher leaks more)"}
_MARKERS = "os^Dv*"
_SMALL, _WIDE, _HIGH = 8, 3.6, 2.5  # size of the font, points; a panel, inches


@plot("confidence.png")
def confidence(table: pd.DataFrame, store: Store | None = None) -> Figure | None:
    """Draw each image's loss and gradient share against what was recovered, a row of panels per victim.

    Beside each panel stands Spearman's rank correlation for each curve; where LPIPS is drawn a negative one
    says that images of larger loss or share leak more.

    Args:
        table: per-image results, columns of `dpbench.store.columns`.
        store: not needed.

    Returns:
        The figure; None where only one `logit_scale` was run, or no image has company in its batch.
    """
    table = schema.conform(table)
    table = table[ended_well(table) & ~only_labels(table)]
    naming = Naming(table)
    table = ordered(table, batch_last=True)
    # alone in its batch an image has the whole gradient, whatever the victim thinks of it
    table = table[~is_floor(table) & (table["batch_size"] > 1) & table["image_grad_share"].notna()]
    if table["logit_scale"].nunique() < 2:
        return None
    recovered = "lpips" if table["lpips"].notna().any() else "psnr"
    rows = table.to_dict("records")
    table = table.assign(
        _row=[", ".join(naming.heading(r, leave_out=["logit_scale"])) for r in rows],
        _curve=[f"{naming.attack(r)}, {naming.defence(r)}, logits x{r['logit_scale']:g}" for r in rows],
    )
    victims, curves = (list(dict.fromkeys(table[column])) for column in ("_row", "_curve"))
    drawn, shown = victims[:MOST_ROWS], curves[:MOST_CURVES]
    high = _HIGH * len(drawn) + 0.5 + 0.3 * len(shown)
    figure = Figure(figsize=(_WIDE * len(_SIGNS), high), layout="constrained")
    panels = figure.subplots(len(drawn), len(_SIGNS), squeeze=False, sharey=True)
    for victim, axes in zip(drawn, panels, strict=True):
        for sign, axis in zip(_SIGNS, axes, strict=True):
            for i, curve in enumerate(shown):
                part = table[(table["_row"] == victim) & (table["_curve"] == curve)]
                _draw(axis, part[[sign, recovered]].dropna().astype(float), sign, recovered, i)
            axis.set_xlabel(_SIGNS[sign], fontsize=_SMALL)
            axis.tick_params(labelsize=_SMALL, which="both")
        axes[0].set_ylabel(_RECOVERED[recovered], fontsize=_SMALL)
        axes[0].set_title(escape.matplotlib(wrap(victim, _WIDE, _SMALL)), fontsize=_SMALL, loc="left")
    title = ["Which images leak; beside each panel: rank correlations"]
    for few, every, what in ((drawn, victims, "victims"), (shown, curves, "curves")):
        title += [f"{len(few)} of {len(every)} {what}"] if len(few) < len(every) else []
    figure.suptitle("; ".join(title), fontsize=_SMALL + 1)
    words = [escape.matplotlib(wrap(curve, _WIDE * len(_SIGNS) - 1, _SMALL)) for curve in shown]
    figure.legend(panels[0][0].collections, words, loc="outside lower center", ncols=1, fontsize=_SMALL)
    return figure


def _draw(axis: Axes, part: pd.DataFrame, sign: str, recovered: str, i: int) -> None:
    x = part[sign].clip(lower=LEAST_LOSS) if sign == "image_loss" else part[sign]
    colour, marker = OKABE_ITO[i % len(OKABE_ITO)], _MARKERS[i % len(_MARKERS)]
    axis.scatter(x, part[recovered], s=16, color=colour, marker=marker, alpha=0.8)
    if sign == "image_loss":
        axis.set_xscale("log")
    words = {"color": colour, "fontsize": _SMALL, "va": "top", "transform": axis.transAxes}
    axis.text(1.02, 1 - 0.09 * i, _rank(part[sign], part[recovered]), **words)


def _rank(sign: pd.Series, recovered: pd.Series) -> str:
    """Spearman's rank correlation as a word; a dash where there are too few images or no ranks."""
    if len(sign) < FEWEST or sign.nunique() < 2 or recovered.nunique() < 2:
        return "–"
    return f"{spearmanr(sign, recovered).statistic:+.2f}"

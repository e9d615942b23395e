"""The plot of which images leak: what was recovered of each, by its loss and its share of the gradient."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.stats import spearmanr

from dpbench.report import escape
from dpbench.report.alike import said_of
from dpbench.report.naming import Naming
from dpbench.report.plots.registry import plot
from dpbench.report.plots.style import COLOURS, COLUMN, FULL, MARKERS, MOST, SMALL, TEXT, text_colour
from dpbench.report.plots.wrap import wrap
from dpbench.report.rows import is_floor, is_of_attack, only_labels, ordered
from dpbench.store import Store, schema
from dpbench.system.once import once

MOST_ROWS = 4
"""Rows of panels at most; the title says what was left out."""
FEWEST = 4
"""Images from which on a rank correlation is worth a number."""
LEAST_LOSS = 1e-6
"""Nats at which smaller losses are drawn; single precision makes some of them zero."""
_SIGNS = {
    "image_loss": "the victim's loss on the image (nat)",
    "image_grad_share": "the image's share of the gradient norm",
}
_RECOVERED = {"lpips": "LPIPS (lower leaks more)", "psnr": "PSNR, dB (higher leaks more)"}
_HIGH = 2.3  # of a panel, inches


def _alt(table: pd.DataFrame, store: Store | None) -> str:
    table, recovered = _prepared(table)
    said = [f"Each image's loss and gradient share against its {recovered.upper()}, by scale of the logits."]
    for (victim, curve), part in table.groupby(["_row", "_curve"], sort=False):
        known = {sign: part[[sign, recovered]].dropna() for sign in _SIGNS}
        ranks = (f"{_SIGNS[sign]} {_rank(rows[sign], rows[recovered])}" for sign, rows in known.items())
        said.append(f"{' '.join(filter(None, [victim, curve]))}: rank correlations {', '.join(ranks)}.")
    return " ".join(said)


@plot("confidence.png", title="Which images leak, by how sure the victim is", alt=_alt)
def confidence(table: pd.DataFrame, store: Store | None = None, width: float = FULL) -> Figure | None:
    """Draw each image's loss and gradient share against what was recovered, a row of panels per victim.

    Of more than `MOST` curves each attack and defence has own rows, with a curve per scale of the logits.

    Beside each panel stands Spearman's rank correlation for each curve; where LPIPS is drawn a negative one
    says that images of larger loss or share leak more.

    Args:
        table: per-image results, columns of `dpbench.store.columns`.
        store: not needed.
        width: of the figure, inches.

    Returns:
        The figure; None where only one `logit_scale` was run, or no image has company in its batch.
    """
    table, recovered = _prepared(table)
    if table["logit_scale"].nunique() < 2:
        return None
    victims, curves = (list(dict.fromkeys(table[column])) for column in ("_row", "_curve"))
    across = len(_SIGNS) if width > COLUMN else 1
    drawn, shown = victims[: MOST_ROWS * across // len(_SIGNS)], curves[:MOST]
    words = [wrap(curve, width - 0.5, SMALL) for curve in shown]
    lines = sum(word.count("\n") + 1 for word in words)
    high = _HIGH * len(drawn) * len(_SIGNS) / across + 0.5 + 0.15 * lines
    figure = Figure(figsize=(width, high), layout="constrained")
    panels = figure.subplots(len(drawn) * len(_SIGNS) // across, across, squeeze=False, sharey=True)
    for victim, axes in zip(drawn, panels.reshape(len(drawn), len(_SIGNS)), strict=True):
        for sign, axis in zip(_SIGNS, axes, strict=True):
            for i, curve in enumerate(shown):
                part = table[(table["_row"] == victim) & (table["_curve"] == curve)]
                _draw(axis, part[[sign, recovered]].dropna().astype(float), sign, recovered, i)
            axis.set_xlabel(_SIGNS[sign])
        axes[0].set_title(escape.matplotlib(wrap(victim, width / across - 0.5, TEXT)), loc="left")
    for axis in panels[:, 0]:
        axis.set_ylabel(_RECOVERED[recovered])
    title = ["Which images leak; beside each panel: rank correlations"]
    for few, every, what in ((drawn, victims, "rows"), (shown, curves, "curves")):
        title += [f"{len(few)} of {len(every)} {what}"] if len(few) < len(every) else []
    figure.suptitle(wrap("; ".join(title), width - 0.2, TEXT))
    words = [escape.matplotlib(word) for word in words]
    figure.legend(panels[0][0].collections, words, loc="outside lower center", ncols=1, frameon=False)
    return figure


@once
def _prepared(table: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Images with company in their batch, with `_row` and `_curve`; the metric."""
    table = schema.conform(table)
    table = table[is_of_attack(table) & ~only_labels(table)]
    naming = Naming(table)
    table = ordered(table, batch_last=True)
    # alone in its batch an image has the whole gradient, whatever the victim thinks of it
    table = table[~is_floor(table) & (table["batch_size"] > 1) & table["image_grad_share"].notna()]
    victims = said_of(table, lambda r: ", ".join(naming.heading(r, leave_out=["logit_scale"])))
    attacks = said_of(table, lambda r: f"{naming.attack(r)}, {naming.defence(r)}")
    scales = said_of(table, lambda r: f"logits x{r['logit_scale']:g}")
    curves = [f"{attack}, {scale}" for attack, scale in zip(attacks, scales, strict=True)]
    if len(set(curves)) > MOST:
        victims = [", ".join(filter(None, each)) for each in zip(attacks, victims, strict=True)]
        curves = scales
    table = table.assign(_row=victims, _curve=curves)
    return table, "lpips" if table["lpips"].notna().any() else "psnr"


def _draw(axis: Axes, part: pd.DataFrame, sign: str, recovered: str, i: int) -> None:
    x = part[sign].clip(lower=LEAST_LOSS) if sign == "image_loss" else part[sign]
    colour, marker = COLOURS[i], MARKERS[i]
    axis.scatter(x, part[recovered], s=16, color=colour, marker=marker, alpha=0.8)
    if sign == "image_loss":
        axis.set_xscale("log")
    words = {"color": text_colour(colour), "fontsize": SMALL, "va": "top", "transform": axis.transAxes}
    axis.text(1.02, 1 - 0.09 * i, _rank(part[sign], part[recovered]), **words)


def _rank(sign: pd.Series, recovered: pd.Series) -> str:
    """Spearman's rank correlation as a word; a dash where there are too few images or no ranks."""
    if len(sign) < FEWEST or sign.nunique() < 2 or recovered.nunique() < 2:
        return "–"
    return f"{spearmanr(sign, recovered).statistic:+.2f}"

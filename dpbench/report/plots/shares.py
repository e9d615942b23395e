"""The plot of who in a batch leaks: an image's share of the loss and of the gradient against its recovery."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.stats import spearmanr

from dpbench.report import escape
from dpbench.report.alike import said_of
from dpbench.report.evidence import originals
from dpbench.report.naming import EMPTY, Naming
from dpbench.report.plots.axes import short
from dpbench.report.plots.registry import plot
from dpbench.report.plots.style import COLOURS, COLUMN, LIGHT, MARKERS, MOST, SMALL, TEXT
from dpbench.report.plots.wrap import wrap
from dpbench.report.rows import is_floor, is_informed, is_of_attack, only_labels, ordered
from dpbench.store import Store, schema
from dpbench.system.once import once
from dpbench.system.words import counted

FEWEST = 8
"""Images from which on a rank correlation is worth a number."""
LEAST = 1e-3
"""Times an equal share at which smaller shares are drawn."""
MOST_POINTS = 2000
"""Points of a curve from which on they are one picture, not marks of their own."""
_SIGNS = {
    "gradient": "gradient norm, times an equal share",
    "loss": "loss, times an equal share",
}
_RECOVERED = {"lpips": "LPIPS (down: leaks more)", "psnr": "PSNR, dB (up: leaks more)"}
_TICKS = (0.001, 0.01, 0.1, 0.5, 1, 2, 5, 10, 50, 100)
SPAN = 0.01
"""Of LPIPS, drawn at least: what is nearer than that looks the same."""
CEILING = 60
"""PSNR from which on images are the same to the eye, dB: more is drawn there."""
_HIGH = 2.6  # of a panel, inches


def with_shares(table: pd.DataFrame) -> pd.DataFrame:
    """`table` with `loss` and `gradient`: the image's share of its batch, times the size of the batch.

    1 is an equal share. Batches of one image, and of a victim in training mode, have none.

    Args:
        table: rows of attacks, columns of `dpbench.store.columns`.
    """
    company = table["batch_size"] > 1
    batch = table.groupby("key")["image_loss"]
    loss = table["image_loss"] / batch.transform("sum") * table["batch_size"].astype("float64")
    gradient = table["image_grad_share"] * table["batch_size"].astype("float64")
    return table.assign(loss=loss.where(company), gradient=gradient.where(company))


def _alt(table: pd.DataFrame, store: Store | None) -> str:
    table, recovered, curves = _prepared(table)
    said = [f"Each image's share of its batch's gradient norm and loss against its {recovered.upper()}."]
    for curve in curves[:MOST]:
        part = table[table["_curve"] == curve]
        ranks = ", ".join(f"{_rank(part, sign, recovered)} for {sign}" for sign in _SIGNS)
        said.append(f"{curve}: {counted(part['_image'].nunique(), 'image')}, rank correlation {ranks}.")
    return " ".join(said)


@plot("shares.png", title="Who in a batch leaks", alt=_alt)
def shares(table: pd.DataFrame, store: Store | None = None, width: float = 6.5) -> Figure | None:
    """Draw what was recovered of each image over its share of the gradient norm and of the loss.

    Shares are in units of an equal share, so that batches of all sizes stand side by side. Beside each name
    is Spearman's rank correlation: with LPIPS, a negative one says that images of larger share leak more.

    Args:
        table: per-image results, columns of `dpbench.store.columns`.
        store: not needed.
        width: of the figure, inches.

    Returns:
        The figure; None where no image has company in its batch.
    """
    table, recovered, curves = _prepared(table)
    if table.empty:
        return None
    shown = curves[:MOST]
    across = len(_SIGNS) if width > COLUMN else 1
    down = len(_SIGNS) // across
    words = [_words(table[table["_curve"] == curve], curve, recovered) for curve in shown]
    words = [escape.matplotlib(wrap(word, width - 0.6, SMALL)) for word in words]
    lines = sum(word.count("\n") + 1 for word in words)
    figure = Figure(figsize=(width, down * _HIGH + 0.15 * lines), layout="constrained")
    panels = figure.subplots(down, across, squeeze=False, sharey=True)
    for axis, (sign, said) in zip(panels.flat, _SIGNS.items(), strict=True):
        for i, curve in enumerate(shown):
            _draw(axis, table[table["_curve"] == curve], sign, recovered, i)
        axis.axvline(1, color=LIGHT, linewidth=1, zorder=0)
        _scale(axis)
        axis.set_xlabel(said)
    beyond = recovered == "psnr" and bool((table.loc[table["_curve"].isin(shown), "psnr"] > CEILING).any())
    for axis in panels[:, 0]:
        axis.set_ylabel(f"{_RECOVERED[recovered]}\n{CEILING}: or more" if beyond else _RECOVERED[recovered])
        if recovered == "lpips" and axis.get_ylim()[1] < SPAN:
            axis.set_ylim(-0.03 * SPAN, SPAN)
    if len(curves) > len(shown):
        said = f"{len(shown)} of {len(curves)} settings, those with most images; exact copies last"
        figure.suptitle(wrap(said, width - 0.2, TEXT))
    handles = panels.flat[0].lines[: len(shown)]
    figure.legend(handles, words, loc="outside lower left", frameon=False, handletextpad=0.3)
    return figure


@once
def _prepared(table: pd.DataFrame) -> tuple[pd.DataFrame, str, list[str]]:
    """Rows with shares and `_curve`; the metric; the curves: most images first, but all copies last."""
    table = schema.conform(table)
    table = table[is_of_attack(table) & ~is_floor(table) & ~is_informed(table) & ~only_labels(table)]
    naming = Naming(table)
    table = with_shares(ordered(table, batch_last=True))
    recovered = "lpips" if table["lpips"].notna().any() else "psnr"
    table = table[table[recovered].notna() & table["gradient"].notna()]
    names = said_of(table, lambda r: ", ".join([naming.attack(r), naming.defence(r), *naming.heading(r)]))
    drawn = table[["batch_size", "lpips", "psnr", *_SIGNS]]
    table = drawn.assign(_curve=names, _image=originals(table))
    # a stable sort: undefended rows come first where there are as many
    by = table.groupby("_curve", sort=False)
    curves = by.size().sort_values(ascending=False, kind="stable").index
    alike = (by["lpips"].max() < SPAN).fillna(False)  # of exact copies there is nothing to compare
    return table, recovered, sorted(curves, key=lambda curve: bool(alike[curve]))


def _words(part: pd.DataFrame, curve: str, recovered: str) -> str:
    ranks = [f"{sign} {rank}" for sign in _SIGNS if (rank := _rank(part, sign, recovered)) != EMPTY]
    return f"{curve}; rank correlation: {', '.join(ranks)}" if ranks else curve


def _rank(part: pd.DataFrame, sign: str, recovered: str) -> str:
    """Spearman's rank correlation as a word; a dash where there are too few images or no ranks."""
    part = part[part[sign].notna()]
    if part["_image"].nunique() < FEWEST or part[sign].nunique() < 2 or part[recovered].nunique() < 2:
        return EMPTY
    return f"{spearmanr(part[sign].astype(float), part[recovered].astype(float)).statistic:+.2f}"


def _draw(axis: Axes, part: pd.DataFrame, sign: str, recovered: str, i: int) -> None:
    axis.plot(
        part[sign].astype(float).clip(lower=LEAST),
        part[recovered].clip(upper=CEILING).astype(float),
        color=COLOURS[i],
        marker=MARKERS[i],
        linestyle="",
        markersize=4,
        markeredgecolor="white",
        markeredgewidth=0.3,
        alpha=0.8,
        rasterized=len(part) > MOST_POINTS,
        gid=part["_curve"].iloc[0] if len(part) else None,
    )


def _scale(axis: Axes) -> None:
    axis.set_xscale("log")
    low, high = axis.get_xlim()
    low, high = min(low, 0.5), max(high, 2.0)
    axis.set_xlim(low, high)
    ticks = [tick for tick in _TICKS if low <= tick <= high]
    axis.set_xticks(ticks, [short(tick) for tick in ticks])
    axis.minorticks_off()

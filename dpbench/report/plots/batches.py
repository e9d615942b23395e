"""The plot of what a larger batch hides: labels, images and who is on them, by the number of images."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from dpbench.privacy.intervals import clopper_pearson
from dpbench.report import escape
from dpbench.report.alike import said_of
from dpbench.report.evidence import originals
from dpbench.report.naming import Naming
from dpbench.report.plots.registry import plot
from dpbench.report.plots.style import COLOURS, COLUMN, DASHES, FULL, MARKERS, MOST, SMALL, TEXT
from dpbench.report.plots.wrap import wrap
from dpbench.report.rows import is_floor, is_informed, is_of_attack, only_labels, ordered
from dpbench.store import Store, schema
from dpbench.system.once import once
from dpbench.system.words import per_cent

FEWEST = 3
"""Batch sizes from which on there is a trend to draw."""
_SHARES = {
    "label_correct": "labels restored",
    "nearer": "nearer the original than its own floors (LPIPS)",
    "iip": "identified by features (IIP)",
}
_HIGH = 2.4  # of a panel, inches
_APART = 0.03  # of the way from one batch size to the next


def _alt(table: pd.DataFrame, store: Store | None) -> str:
    table, shares = _prepared(table)
    said = ["Shares of images by batch size."]
    table = table[table["_curve"].isin(_curves(table)[:MOST])]
    for (curve, size), rows in table.groupby(["_curve", "batch_size"], sort=False):
        found = (
            f"{_SHARES[share]} {per_cent(rows[share].mean())} %" for share in shares if rows[share].count()
        )
        said.append(f"{curve}, batch of {size}: {', '.join(found)}.")
    return " ".join(said)


@plot("batches.png", title="What a larger batch hides", alt=_alt)
def batches(table: pd.DataFrame, store: Store | None = None, width: float = FULL) -> Figure | None:
    """Draw shares of images over the batch size, a curve per attack, defence and whatever else varies.

    The `MOST` with most batch sizes are drawn; the title says how many there are.

    Bars are 95 % Clopper-Pearson intervals over images, each of which counts once, by its first batch and
    attack seed; the dotted line is a blind choice's IIP.

    Args:
        table: per-image results, columns of `dpbench.store.columns`.
        store: not needed.
        width: of the figure, inches.

    Returns:
        The figure; None where there are fewer than `FEWEST` batch sizes or no share to draw.
    """
    table, shares = _prepared(table)
    if table["batch_size"].nunique() < FEWEST or not shares:
        return None
    curves = _curves(table)
    drawn = curves[:MOST]
    sizes = sorted(table.loc[table["_curve"].isin(drawn), "batch_size"].unique())
    across = len(shares) if width > COLUMN else 1
    down = len(shares) // across
    words = [wrap(curve, width - 0.8, SMALL) for curve in drawn]
    lines = sum(word.count("\n") + 1 for word in words)
    figure = Figure(figsize=(width, _HIGH * down + 0.4 + 0.15 * lines), layout="constrained")
    panels = figure.subplots(down, across, squeeze=False).ravel()
    for axis, share in zip(panels, shares, strict=True):
        for i, curve in enumerate(drawn):
            # curves stand beside each other, so that bars do not hide bars
            places = {size: at + _APART * (i - (len(drawn) - 1) / 2) for at, size in enumerate(sizes)}
            _draw(axis, table[(table["_curve"] == curve) & table[share].notna()], share, places, i)
        _dress(axis, wrap(_SHARES[share], width / across - 0.5, TEXT), sizes)
    if "iip" in shares:
        for chance in sorted(table["iip_chance"].dropna().unique()):
            panels[shares.index("iip")].axhline(chance, color="0.5", linestyle=":", linewidth=1)
    blind = "; dotted: a blind choice" if "iip" in shares else ""
    left_out = f"\n{MOST} of {len(curves)} curves, those with most batch sizes" if len(curves) > MOST else ""
    figure.suptitle(f"Share of images, 95 % intervals{blind}{left_out}")
    words = [escape.matplotlib(word) for word in words]
    figure.legend(panels[0].containers, words, loc="outside lower center", ncols=1, frameon=False)
    return figure


@once
def _prepared(table: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Attacks with their shares and `_curve`; which shares there are."""
    table = schema.conform(table)
    table = table[is_of_attack(table)]
    naming = Naming(table)
    table = _with_shares(ordered(table, batch_last=True)).reset_index(drop=True)
    table = table[~is_floor(table) & ~is_informed(table)]
    names = said_of(table, lambda r: ", ".join([naming.attack(r), naming.defence(r), *naming.heading(r)]))
    table = table.assign(_curve=names, _image=originals(table))
    table = table.sort_values(["batch_seed", "attack_seed", "image"], kind="stable")
    again = table.duplicated(["_curve", "batch_size", "_image"])
    return table[~again].sort_index(), [share for share in _SHARES if table[share].notna().any()]


def _curves(table: pd.DataFrame) -> list[str]:
    """Names of all curves, those with most batch sizes first, or half of the panel could stay empty."""
    sizes = table.groupby("_curve", sort=False)["batch_size"].nunique()
    return list(sizes.sort_values(ascending=False, kind="stable").index)


def _with_shares(table: pd.DataFrame) -> pd.DataFrame:
    """`table` with a column of ones, zeros and blanks for each share."""
    nearer = (table["lpips"] < table["lpips_floor"]).astype("Float64")
    nearer = nearer.mask(table["lpips"].isna() | table["lpips_floor"].isna() | only_labels(table))
    restored = table["label_correct"].astype("Float64").mask((table["labels"] == "known").fillna(False))
    iip = table["iip"].astype("Float64").mask(only_labels(table))
    return table.assign(nearer=nearer, label_correct=restored, iip=iip)


def _draw(axis: Axes, rows: pd.DataFrame, share: str, places: dict[int, float], i: int) -> None:
    found = rows.groupby("batch_size")[share].agg(["sum", "count"])
    right, trials = found["sum"].to_numpy(dtype=float), found["count"].to_numpy(dtype=float)
    ends = [clopper_pearson(round(r), round(n)) for r, n in zip(right, trials, strict=True)]
    low, high = np.array(ends).reshape(-1, 2).T
    middle = right / trials
    axis.errorbar(
        [places[size] for size in found.index],
        middle,
        yerr=np.clip((middle - low, high - middle), 0, None),
        color=COLOURS[i],
        marker=MARKERS[i],
        linestyle=DASHES[i],
        elinewidth=0.7,
        capsize=2,
    )


def _dress(axis: Axes, title: str, sizes: list[int]) -> None:
    axis.set_title(title)
    axis.set_xticks(range(len(sizes)), [str(size) for size in sizes])
    axis.set_xlabel("images in the batch")
    axis.set_xlim(-0.5, len(sizes) - 0.5)
    axis.set_ylim(-0.03, 1.03)
    axis.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))

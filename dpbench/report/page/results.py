"""The tables of results: as in `table.md`, and every figure of `summary.csv`."""

from __future__ import annotations

import pandas as pd
from markupsafe import Markup

from dpbench.report.adaptive import GAINS, gains, readable
from dpbench.report.fields import LONG
from dpbench.report.page.data import data_table
from dpbench.report.page.templating import render
from dpbench.report.published import published
from dpbench.report.sheet import sheets
from dpbench.report.summary import summary
from dpbench.store import Store

WORDS = 2
"""Columns before the numbers: attack, defence."""
SHOWN = (
    *("attack", "defense", "eps", "noise_multiplier", "batch_size", "images", "failed"),
    *("psnr_median", "psnr_max", "psnr_over_floor_median", "lpips_median", "identified_share", "success"),
)


def results(table: pd.DataFrame, store: Store) -> Markup | None:
    """One line for each condition; None without any row."""
    if table.empty:
        return None
    lines = summary(table)
    return render(
        "results",
        sheets=sheets(table, LONG),
        words=WORDS,
        published=published(table),
        gains=readable(gains(table)),
        title=GAINS,
        everything=data_table("summary", "Every figure of the summary", lines, SHOWN, file="summary.csv"),
    )

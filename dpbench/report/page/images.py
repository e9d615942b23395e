"""The rows of `results.csv`: one for each image."""

from __future__ import annotations

import pandas as pd
from markupsafe import Markup

from dpbench.report.page.data import data_table
from dpbench.store import Store

SHOWN = (
    *("attack", "defense", "eps", "noise_multiplier", "batch_size", "batch_seed", "image", "psnr"),
    *("psnr_floor", "lpips", "identified", "success", "status", "key"),
)


def images(table: pd.DataFrame, store: Store) -> Markup | None:
    """Every row; None without any."""
    if table.empty:
        return None
    return data_table("images", "Every image", table, SHOWN, {"key": "cell-"})

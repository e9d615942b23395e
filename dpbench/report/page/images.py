"""The rows of `results.csv`: one for each image, with the flags that stand beside them."""

from __future__ import annotations

import pandas as pd
from markupsafe import Markup

from dpbench.report.flags import flags
from dpbench.report.page.data import data_table
from dpbench.store import Store

FLAGS = "flags"
"""The column that says which flags a row has; it is not in `results.csv`."""
SHOWN = (
    *("attack", "defense", "eps", "noise_multiplier", "batch_size", "batch_seed", "image", "psnr"),
    *("psnr_floor", "lpips", "identified", "success", "status", FLAGS, "key"),
)


def images(table: pd.DataFrame, store: Store) -> Markup | None:
    """Every row; None without any."""
    if table.empty:
        return None
    raised: dict[str, list[str]] = {}
    for flag in flags(table, store):
        for key in flag.keys:
            raised.setdefault(key, []).append(flag.kind)
    kinds = {key: ", ".join(dict.fromkeys(each)) for key, each in raised.items()}
    table = table.assign(**{FLAGS: table["key"].map(kinds).astype("string")})
    return data_table(
        "images", "Every image", table, SHOWN, links={"key": "cell-"}, mark=FLAGS, file="results.csv"
    )

"""Figures of the runs about label restoration."""

from __future__ import annotations

from typing import Any

import pandas as pd
from stored_results import HOME, results


def labels() -> dict[str, Any]:
    """Suite `labels`: the share of labels restored, by victim, rule, draw and batch size."""
    rows = results("labels")
    rows = rows[rows["floor"].isna()]
    found = rows.groupby(["victim", "label_rule", "label_draw", "batch_size"])["label_correct"].mean()
    return {"sizes": sorted(rows["batch_size"].unique()), "restored": found.to_dict()}


def labels_under_noise() -> dict[str, Any]:
    """`benchmarks.labels_under_noise`: the share of labels restored, by batch size, rule and noise."""
    table = pd.read_csv(HOME / "labels-under-noise" / "labels.csv")
    levels = [name for name in table if name.startswith("sigma ")]
    rows = [
        {
            "batch": row["batch"],
            "rule": "without the release" if row["rule"] == "blind" else row["rule"],
            "shares": [row[level] for level in levels],
        }
        for row in table.to_dict("records")
    ]
    return {"levels": [level.removeprefix("sigma ") for level in levels], "rows": rows}

"""Figures of the GradInversion paper, to be set beside ours; never more than a trend.

Yin et al., CVPR 2021: ResNet-50, ImageNet, 224 px. As quoted in a secondary source: the authors' code and
weights were not released, so that no run of ours has the paper's data and weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from dpbench.report.evidence import originals
from dpbench.report.naming import Naming, settings
from dpbench.report.rows import ended_well, only, only_labels
from dpbench.store import schema
from dpbench.system.once import once
from dpbench.system.words import counted, per_cent

_SOURCE = "Yin et al. 2021, ResNet-50, ImageNet, 224 px"


@dataclass(frozen=True)
class Published:
    """One row of the paper.

    Attributes:
        where: our rows that it belongs beside, by column.
        figures: what the paper says.
        place: the table or section.
    """

    where: dict[str, str | int]
    figures: str
    place: str


FIGURES = (
    Published({"attack": "gradinversion", "terms": "gradient"}, "PSNR 10.75 dB, LPIPS 0.919", "table 2, B=8"),
    Published(
        {"attack": "gradinversion", "terms": "fidelity"},
        "PSNR 12.06 dB, LPIPS 0.655 (running statistics)",
        "table 2, B=8",
    ),
    Published({"attack": "gradinversion", "terms": "lazy"}, "PSNR 12.52 dB, LPIPS 0.554", "table 2, B=8"),
    Published(
        {"attack": "gradinversion", "terms": "registered"},
        "PSNR 12.93 dB, LPIPS 0.484, FFT2D 0.175",
        "table 2, B=8",
    ),
    Published(
        {"attack": "gradinversion", "terms": "registered", "batch_size": 48},
        "IIP about 28 %",
        "B=48",
    ),
    Published(
        {"attack": "label-restoration", "label_rule": "minimum", "batch_size": 8},
        "labels 99.56 %",
        "table 1, B=8, distinct",
    ),
    Published(
        {"attack": "label-restoration", "label_rule": "sum", "batch_size": 8},
        "labels 95.89 %",
        "table 1, B=8, distinct",
    ),
)


@once
def published(table: pd.DataFrame) -> list[str]:
    """A line for each published figure that some rows of ours belong beside, ours with it.

    Args:
        table: per-image results, columns of `dpbench.store.columns`.

    Returns:
        Nothing where the paper says nothing of what was run.
    """
    table = schema.conform(table)
    # who was told the labels restored none
    told = only_labels(table) & (table["labels"] == "known").fillna(False)
    usable = ended_well(table) & ~told & (table["defense"] == "none").fillna(False)
    usable = only(table, usable.astype(bool))
    beside = [(row, same) for row in FIGURES if (same := _beside(usable, row)).any()]
    if not beside:
        return []
    named = Naming(usable)
    lines = []
    for row, same in beside:
        name = ", ".join(str(value) for value in row.where.values())
        # rows that differ in a setting are never put together
        apart = ["batch_size", *named.headings, *named.of_attack(row.where["attack"])]
        parts = usable[same].groupby(apart, dropna=False, sort=False)
        ours = "; ".join(_ours(part, apart) for _, part in parts)
        lines.append(f"{name}: published {row.figures} ({row.place}); here {ours}")
    return [
        *lines,
        f"Published: {_SOURCE}, from a secondary source; other data and weights here, so a trend only",
    ]


def _beside(table: pd.DataFrame, row: Published) -> pd.Series:
    """Which rows are of the setting of a published one."""
    same = pd.Series(True, index=table.index)
    for column, value in row.where.items():
        same &= (table[column] == value).fillna(False).astype(bool)
    return same


def _ours(rows: pd.DataFrame, apart: list[str]) -> str:
    first = rows.iloc[0]
    return f"{_figures(rows)} ({', '.join(settings(first, apart))})"


def _figures(rows: pd.DataFrame) -> str:
    if rows["attack"].iloc[0] == "label-restoration":
        return f"labels {rows['label_correct'].mean():.2%} of {len(rows)}"
    words = [f"median PSNR {rows['psnr'].median():.2f} dB"]
    if rows["lpips"].notna().any():
        words.append(f"LPIPS {rows['lpips'].median():.3f}")
    if rows["iip"].notna().any():
        found = per_cent(rows["iip"].astype(float).mean())
        words.append(f"IIP {found}% (blind choices {rows['iip_chance'].mean():.1%})")
    return f"{', '.join(words)} of {counted(originals(rows).nunique(), 'image')}"

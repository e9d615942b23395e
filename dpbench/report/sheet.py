"""Results as a sheet of text cells, before it is known where they are shown."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from dpbench.report.budgets import budgets
from dpbench.report.naming import EMPTY, Naming, number
from dpbench.report.notes import details, notes
from dpbench.report.rows import is_floor
from dpbench.report.summary import metrics, summary, worst
from dpbench.store import schema

_IN_SUMMARY_ONLY = ("fft2d",)


@dataclass(frozen=True)
class Sheet:
    """A table of finished text.

    Attributes:
        budgets: which noise each budget comes to: what stands above the table.
        header: one title per column.
        sections: (title, rows), one per batch size and other conditions that vary.
        notes: what holds for the whole sheet.
        details: likewise, where there is room.
        short: whether each column is kept where there is little room.
    """

    budgets: tuple[str, ...]
    header: tuple[str, ...]
    sections: tuple[tuple[str, tuple[tuple[str, ...], ...]], ...]
    notes: tuple[str, ...]
    details: tuple[str, ...]
    short: tuple[bool, ...]


@dataclass(frozen=True)
class _Field:
    title: str
    text: Callable[[Mapping[str, Any]], str]
    needs: str | None = None  # left out where this column of the summary is empty
    short: bool = True


def _quantiles(metric: str, spec: str) -> Callable[[Mapping[str, Any]], str]:
    return lambda row: _span(*(number(row[f"{metric}_{q}"], spec) for q in ("q10", "q90")))


def _span(low: str, high: str) -> str:
    return low if low == EMPTY else f"{low}–{high}"


def _one(column: str, spec: str) -> Callable[[Mapping[str, Any]], str]:
    return lambda row: number(row[column], spec)


def _labels(row: Mapping[str, Any]) -> str:
    known = not pd.isna(row["labels"]) and row["labels"] == "known"
    return "given" if known else number(row["label_accuracy"], ".0%")


def _interval(column: str) -> Callable[[Mapping[str, Any]], str]:
    return lambda row: _span(*(number(row[f"{column}_{end}"], ".2f") for end in ("low", "high")))


def _fields(naming: Naming) -> list[_Field]:
    fields = [
        _Field("Attack", naming.attack),
        _Field("Defence", naming.defence),
        _Field("ε release", _one("eps_release", ".3g"), "eps_release"),
        _Field("σ", _one("noise_multiplier", ".3g"), "noise_multiplier", short=False),
        _Field("Bound", _one("rero_release", ".2f"), "rero_release"),
        _Field("Images", _one("images", "d"), short=False),
        _Field("PSNR", _one("psnr_median", ".1f"), "psnr_median"),
        _Field("PSNR mean", _one("psnr_mean", ".1f"), "psnr_median", short=False),
        _Field("PSNR 10–90 %", _quantiles("psnr", ".1f"), "psnr_median", short=False),
        _Field("PSNR max", _one("psnr_max", ".1f"), "psnr_median"),
        _Field("over floor", _one("psnr_over_floor_median", "+.1f"), "psnr_over_floor_median"),
        _Field("SSIM", _one("ssim_median", ".2f"), "ssim_median", short=False),
        _Field("LPIPS", _one("lpips_median", ".2f"), "lpips_median"),
        _Field("LPIPS mean", _one("lpips_mean", ".2f"), "lpips_median", short=False),
        _Field("LPIPS 10–90 %", _quantiles("lpips", ".2f"), "lpips_median", short=False),
        _Field("LPIPS min", _one("lpips_min", ".2f"), "lpips_median"),
        _Field("Identified", _one("identified_share", ".0%"), "identified_share"),
        _Field("IIP", _one("iip", ".0%"), "iip", short=False),
        _Field("Picked", _one("success", ".0%"), "success"),
        _Field("Picked 95 %", _interval("success"), "success", short=False),
        _Field("Bound 1/n", _one("success_bound", ".2f"), "success_bound", short=False),
        _Field("Member", _one("membership", ".0%"), "membership", short=False),
        _Field("Member 95 %", _interval("membership"), "membership_low", short=False),
        _Field("Member bound", _one("membership_bound", ".2f"), "membership_bound", short=False),
        _Field("Labels", _labels, "label_accuracy"),
        _Field("Failed", _one("failed", "d"), "failed", short=False),
    ]
    ours = {*_IN_SUMMARY_ONLY, *(field.needs.rpartition("_")[0] for field in fields if field.needs)}
    for name, metric in metrics().items():
        if name not in ours:
            title = f"{name.replace('_', ' ')}{metric.unit and f' ({metric.unit})'}"
            for statistic in ("median", worst(metric)):
                shown = title if statistic == "median" else f"{title} {statistic}"
                column = f"{name}_{statistic}"
                fields.insert(-2, _Field(shown, _one(column, ".3g"), column, short=False))
    return fields


def sheets(table: pd.DataFrame) -> list[Sheet]:
    """Lay out results, one sheet per accountant, so that no two budgets in a sheet were computed differently.

    Args:
        table: per-image results, columns of `dpbench.store.columns`.
    """
    table = schema.conform(table)
    accountants = list(table["accountant"].dropna().unique()) or [None]
    return [
        _sheet(
            table[table["accountant"].isna() | (table["accountant"] == accountant).fillna(False)], accountant
        )
        for accountant in accountants
    ]


def _sheet(table: pd.DataFrame, accountant: str | None) -> Sheet:
    naming = Naming(table)
    lines = summary(table)
    attacked = lines[~is_floor(lines)]
    lines["label_accuracy"] = lines["label_accuracy"].where(lines["labels"] != "known")  # no achievement
    parts = naming.sections(lines)
    shown = pd.concat([part for _, part in parts]) if parts else lines
    fields = [field for field in _fields(naming) if field.needs is None or _filled(shown[field.needs])]
    return Sheet(
        budgets=tuple(budgets(attacked)),
        header=tuple(field.title for field in fields),
        sections=tuple((title, _texts(part, fields)) for title, part in parts),
        notes=tuple(notes(table, attacked, accountant)),
        details=tuple(details(attacked)),
        short=tuple(field.short for field in fields),
    )


def _texts(part: pd.DataFrame, fields: list[_Field]) -> tuple[tuple[str, ...], ...]:
    floors = is_floor(part)
    found = [tuple(field.text(row) for field in fields) for row in part.to_dict("records")]
    # the mean image, say, is measured again for each setting of an attack that it does not depend on
    again = pd.Series(found, index=part.index, dtype=object).duplicated() & floors
    return tuple(text for text, known in zip(found, again, strict=True) if not known)


def _filled(column: pd.Series) -> bool:
    return bool((column > 0).any()) if column.name == "failed" else bool(column.notna().any())

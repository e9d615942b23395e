"""The columns of tables: what stands in each, and which are shown where."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from dpbench.privacy.rounding import up, up_places
from dpbench.protocol import InputError, meant
from dpbench.report.naming import EMPTY, ROUNDED_UP, number
from dpbench.report.summary import metrics, summary, worst
from dpbench.store import schema
from dpbench.system.words import per_cent

SHORT, LONG, ALL = "short", "long", "all"
"""What is shown unless columns are asked for by name: on a terminal and in a paper; in `table.md`; and every
column of the summary that holds anything. The width of a terminal decides nothing: the same results look the
same on every machine, and tables of two runs can be compared."""
MOST_IN_PAPERS = 7
"""Columns of numbers in LaTeX, beside the names."""
_NAMES = ("attack", "defense", "floor", "floor_of", "batch_size")
"""Columns of the summary that are said by the names of rows and sections."""
_IN_SUMMARY_ONLY = ("fft2d",)
_LETTERS = ("psnr", "lpips", "ssim", "iip")
"""Words that are the letters of others."""
_INTERVALS = ("success_low", "membership_low")
"""What stands for both ends, unless one of them is asked for."""
_FIRST_LEFT_OUT = ("noise_multiplier", "label_accuracy")
"""Where a paper has no room for all: sigma stands above the table."""

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Field:
    """One column of a table.

    Attributes:
        name: the column of the summary.
        title: what stands above it.
        text: of its cell in a row of the summary.
        shown: `SHORT`, `LONG` or, for what is only shown by name, nothing; what is short is long, too.
    """

    name: str
    title: str
    text: Callable[[Row], str]
    shown: str = ""


def chosen(columns: str) -> str | tuple[str, ...]:
    """The columns that are asked for on the command line.

    Args:
        columns: names of the summary's columns with commas between them, or `all`.

    Returns:
        The names, or `ALL`.

    Raises:
        InputError: for a name that is none of them.

    Example:
        >>> chosen("psnr_max, lpips_min")
        ('psnr_max', 'lpips_min')
    """
    known = [*summary(schema.frame([])).columns]
    names = tuple(dict.fromkeys(filter(None, (word.strip() for word in columns.split(",")))))
    if ALL in names:
        return ALL
    for name in names:
        if name not in known:
            raise InputError(
                f"`columns`: summary.csv has no {name!r}{meant(name, (*known, ALL))}; give names of its "
                "columns with commas between them, or all."
            )
    if not names:
        raise InputError("`columns` needs at least one name of a column of summary.csv, or all.")
    return names


def fields(lines: pd.DataFrame, columns: str | Sequence[str]) -> list[Field]:
    """The columns to show.

    Args:
        lines: the rows of the summary that are shown.
        columns: `SHORT`, `LONG` or `ALL`, for what of it has values in `lines`; or names of the summary's
            columns.
    """
    own = _own()
    if columns == ALL:
        columns = [name for name in lines.columns if name not in _NAMES and lines[name].notna().any()]
    if not isinstance(columns, str):
        named = {field.name: field for field in own if field.name not in _INTERVALS}
        return [named.get(name) or _any(name) for name in columns]
    found = [
        field for field in own if field.shown and columns in (field.shown, LONG) and _filled(field, lines)
    ]
    counted = {field.name for field in found} & {"identified_share", "success"}
    alone = lines[["psnr_median", "success"]].isna().all(axis=1) & lines["label_accuracy"].notna()
    left_out = set()
    if columns == SHORT and counted:
        left_out.add("images")  # how many there are stands beside what was counted
    if columns == SHORT and not alone.any():
        left_out.add("label_accuracy")
    return [field for field in found if field.name not in left_out]


def for_papers(found: Iterable[Field]) -> list[Field]:
    """As many of these columns as a paper has room for."""
    kept = list(found)
    for name in _FIRST_LEFT_OUT:
        if len(kept) > MOST_IN_PAPERS:
            kept = [field for field in kept if field.name != name]
    return kept[:MOST_IN_PAPERS]


def _own() -> list[Field]:
    found = [
        Field("noise_multiplier", "σ", _up("noise_multiplier"), SHORT),
        Field("eps_release", "ε release", _up("eps_release"), SHORT),
        Field("rero_release", "Bound", _up_places("rero_release"), SHORT),
        Field("images", "Images", _one("images", "d"), SHORT),
        Field("psnr_median", "PSNR", _one("psnr_median", ".1f"), SHORT),
        Field("psnr_max", "PSNR max", _one("psnr_max", ".1f"), SHORT),
        Field("psnr_over_floor_median", "over floor", _one("psnr_over_floor_median", "+.1f"), LONG),
        Field("ssim_median", "SSIM", _one("ssim_median", ".2f"), LONG),
        Field("lpips_median", "LPIPS", _one("lpips_median", ".2f"), SHORT),
        Field("lpips_min", "LPIPS min", _one("lpips_min", ".2f"), LONG),
        Field("identified_share", "Identified", _of("identified_share", "identified_of"), SHORT),
        Field("iip", "IIP", _share("iip"), LONG),
        Field("success", "Picked", _of("success", "trials"), SHORT),
        Field("success_low", "Picked 95 %", _interval("success"), LONG),
        Field("success_bound", "Bound 1/n", _up_places("success_bound"), LONG),
        Field("membership", "Member", _share("membership"), LONG),
        Field("membership_low", "Member 95 %", _interval("membership"), LONG),
        Field("membership_bound", "Member bound", _up_places("membership_bound"), LONG),
        Field("added_parameters", "Added parameters", _one("added_parameters", ".0f"), LONG),
        Field("accuracy_drop", "Accuracy drop", _share("accuracy_drop"), LONG),
        Field("loss_rise", "Loss rise", _one("loss_rise", "+.2f"), LONG),
        Field("label_accuracy", "Labels", _labels, SHORT),
        Field("failed", "Failed", _one("failed", "d"), LONG),
    ]
    ours = {*_IN_SUMMARY_ONLY, "psnr", "lpips", "ssim"}
    for name, metric in metrics().items():
        if name not in ours:
            title = f"{name.replace('_', ' ')}{metric.unit and f' ({metric.unit})'}"
            for statistic in ("median", worst(metric)):
                shown = title if statistic == "median" else f"{title} {statistic}"
                column = f"{name}_{statistic}"
                found.insert(-2, Field(column, shown, _three(column), LONG))
    return found


def _any(name: str) -> Field:
    """A column of the summary that no table shows by itself."""
    words = [word.upper() if word in _LETTERS else word for word in name.split("_")]
    text = _up(name) if name in ROUNDED_UP else lambda row: _plain(row[name])
    return Field(name, " ".join(words), text)


def _plain(value: Any) -> str:
    if value is None or pd.isna(value):
        return EMPTY
    if isinstance(value, bool):
        return "yes" if value else "no"
    return (
        str(value)
        if isinstance(value, str)
        else number(value, "d" if isinstance(value, int) else _digits(value))
    )


def _digits(value: float) -> str:
    """The format of three digits, in which thousands are written out."""
    return ".0f" if 999.5 <= abs(value) < 1e6 else ".3g"


def _three(column: str) -> Callable[[Row], str]:
    return lambda row: EMPTY if pd.isna(row[column]) else number(row[column], _digits(row[column]))


def _up(column: str) -> Callable[[Row], str]:
    """Of a guarantee or its noise: three digits, upwards."""
    return lambda row: EMPTY if pd.isna(row[column]) else up(row[column])


def _up_places(column: str) -> Callable[[Row], str]:
    """Of a bound on a share: three places, upwards."""
    return lambda row: EMPTY if pd.isna(row[column]) else up_places(row[column])


def _one(column: str, spec: str) -> Callable[[Row], str]:
    return lambda row: number(row[column], spec)


def _share(column: str) -> Callable[[Row], str]:
    return lambda row: EMPTY if pd.isna(row[column]) else f"{per_cent(row[column])}%"


def _of(share: str, count: str) -> Callable[[Row], str]:
    """So many of so many."""
    return lambda row: EMPTY if pd.isna(row[share]) else f"{row[share] * row[count]:.0f}/{row[count]:.0f}"


def _interval(column: str) -> Callable[[Row], str]:
    def text(row: Row) -> str:
        low, high = (number(row[f"{column}_{end}"], ".2f") for end in ("low", "high"))
        return low if low == EMPTY else f"{low}–{high}"

    return text


def _labels(row: Row) -> str:
    known = not pd.isna(row["labels"]) and row["labels"] == "known"
    return "given" if known else _share("label_accuracy")(row)


def _filled(field: Field, lines: pd.DataFrame) -> bool:
    column = lines[field.name]
    return bool((column > 0).any()) if field.name == "failed" else bool(column.notna().any())

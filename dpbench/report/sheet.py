"""Results as a sheet of text cells, before it is known where they are shown."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from dpbench.report.labels import (
    EMPTY,
    attack_label,
    defense_label,
    distinguishing,
    is_floor,
    number,
    sections,
)
from dpbench.report.summary import summary
from dpbench.store import schema


@dataclass(frozen=True)
class Sheet:
    """A table of finished text.

    Attributes:
        header: one title per column.
        sections: (title, rows), one per batch size and other conditions that vary.
        notes: what holds for the whole sheet.
        short: whether each column is kept where there is little room.
    """

    header: tuple[str, ...]
    sections: tuple[tuple[str, tuple[tuple[str, ...], ...]], ...]
    notes: tuple[str, ...]
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


def _interval(row: Mapping[str, Any]) -> str:
    return _span(*(number(row[f"success_{end}"], ".2f") for end in ("low", "high")))


_FIELDS = (
    _Field("Attack", attack_label),
    _Field("Defence", defense_label),
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
    _Field("Picked 95 %", _interval, "success", short=False),
    _Field("Bound 1/n", _one("success_bound", ".2f"), "success_bound", short=False),
    _Field("Member", _one("membership", ".0%"), "membership", short=False),
    _Field("Labels", _labels, "label_accuracy"),
    _Field("Failed", _one("failed", "d"), "failed", short=False),
)


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
    lines = summary(table)
    attacked = lines[~is_floor(lines)]
    lines = distinguishing(lines)
    lines["label_accuracy"] = lines["label_accuracy"].where(lines["labels"] != "known")  # no achievement
    parts = sections(lines)
    shown = pd.concat([part for _, part in parts]) if parts else lines
    fields = [field for field in _FIELDS if field.needs is None or _filled(shown[field.needs])]
    return Sheet(
        header=tuple(field.title for field in fields),
        sections=tuple(
            (title, tuple(tuple(field.text(row) for field in fields) for row in part.to_dict("records")))
            for title, part in parts
        ),
        notes=tuple(_notes(table, attacked, accountant)),
        short=tuple(field.short for field in fields),
    )


def _notes(table: pd.DataFrame, attacked: pd.DataFrame, accountant: str | None) -> list[str]:
    same = [name for name in ("model", "norm", "victim", "data", "labels") if attacked[name].nunique() == 1]
    words = [f"{name} {attacked[name].dropna().iloc[0]}" for name in same]
    accuracy = attacked["victim_accuracy"].dropna().unique()
    if len(accuracy) == 1:
        words.append(f"the victim's test accuracy {accuracy[0]:.0%}")
    notes = [", ".join(words)] if words else []
    if attacked["psnr_median"].notna().any() or attacked["success"].isna().all():
        notes.append(
            "PSNR (dB, higher leaks more) and LPIPS (lower leaks more) are medians over images, max and min "
            "the worst cases; over floor is the median of PSNR minus the best floor of the same image"
        )
    if (attacked["labels"] != "known").any():
        notes.append("labels is the share of labels that the attack had right")
    norms = attacked["max_grad_norm"].dropna().unique()
    if len(norms) == 1:
        notes.append(f"each sample's gradient is clipped to C={norms[0]:g} by clip and dp")
    private = attacked[attacked["eps_release"].notna()]
    if len(private):
        scope = "whole training" if private["eps"].notna().any() else "attacked gradient"
        words = [f"ε is the budget of the {scope}", f"accountant {accountant}"]
        words += [f"δ {value:g}" for value in sorted(private["delta"].dropna().unique())]
        words += [f"{word} adjacency" for word in private["adjacency"].dropna().unique()]
        notes.append(", ".join(words))
    if attacked["rero_release"].notna().any():
        notes.append(
            "bound (ReRo): the largest share of cases in which an attacker can be right about a sample, if "
            "it is right in 10 % of them without the release"
        )
    galleries = attacked["gallery_size"].dropna().unique()
    if len(galleries):
        sizes = " and ".join(f"{size:g}" for size in sorted(galleries))
        notes.append(f"identified: the original was picked out of a gallery of {sizes} images")
    chances = attacked["iip_chance"].dropna().unique()
    if len(chances):
        blind = " and ".join(f"{chance:.1%}" for chance in sorted(chances))
        notes.append(
            f"IIP (in table.md): the same by a network's features (Yin et al. 2021); by chance {blind}"
        )
    if attacked["success"].notna().any():
        notes.append(
            "picked: the informed attacker's share of right answers among its n candidates, its bound at "
            "prior 1/n; member: its share of right answers to whether the sample is in the batch"
        )
    passed = int((attacked["success_low"] > attacked["success_bound"]).sum())
    if passed:
        notes.append(
            f"{passed} of {attacked['success_bound'].notna().sum()} intervals of the informed attacker lie "
            "above the bound: more than one in forty is a bug in the defence or in its accounting"
        )
    if table["lpips"].isna().all():
        notes.append("LPIPS is empty: its trained trunk was not to be had")
    nets = table["lpips_net"].dropna().unique()
    if len(nets):
        notes.append(f"LPIPS trunk: {', '.join(nets)}")
    failed = table[table["status"].fillna("ok") != "ok"]
    if len(failed):
        reasons = failed["error"].dropna().unique()
        first = f"; the first reason: {reasons[0].rstrip('.')}" if len(reasons) else ""
        cells = failed["key"].nunique()
        notes.append(f"{cells} cell{'s have' if cells > 1 else ' has'} no result{first}")
    return notes


def _filled(column: pd.Series) -> bool:
    return bool((column > 0).any()) if column.name == "failed" else bool(column.notna().any())

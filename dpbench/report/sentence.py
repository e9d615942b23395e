"""What the table means, in one sentence made from its numbers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd

from dpbench import schema
from dpbench.report.labels import attack_label, defense_label, distinguishing, is_defended, is_floor, number
from dpbench.report.summary import summary

WORKS_DB = 3.0
"""An attack works if its median image is this far above the best floor's PSNR and below the lowest LPIPS."""
FLOOR_DB = 1.0
"""Up to this much above the best floor, LPIPS not below `FLOOR_LPIPS`, it is no better than a guess."""
FLOOR_LPIPS = 0.9
"""LPIPS over its lowest floor; floors of neighbouring seeds differ by about a tenth."""

_UNDEFENDED = {
    "works": "rebuilds the undefended images",
    "partly": "rebuilds the undefended images only in part",
    "floor": "does no better on the undefended gradient than a guess without it",
    "unknown": "has no floors to be judged by",
}
_DEFENDED = {
    "works": "they are still rebuilt",
    "partly": "they are rebuilt in part",
    "floor": "no attack does better than a guess without the gradient",
    "unknown": "there are no floors to judge by",
}


def verdict(over_floor: float, lpips_ratio: float) -> str:
    """Judge an attack by what it has over the floors.

    Args:
        over_floor: median over images of PSNR minus the best floor of the same image, dB.
        lpips_ratio: median of LPIPS over the lowest floor of the same image; NaN where LPIPS is empty.

    Returns:
        `works`, `partly`, `floor`, or `unknown` without floors.

    Example:
        >>> verdict(7.0, 0.3), verdict(7.0, 1.2), verdict(0.5, 0.5), verdict(0.5, 1.2)
        ('works', 'partly', 'partly', 'floor')
    """
    if pd.isna(over_floor):
        return "unknown"
    if over_floor >= WORKS_DB and not lpips_ratio >= 1:
        return "works"
    return "floor" if over_floor <= FLOOR_DB and not lpips_ratio < FLOOR_LPIPS else "partly"


def sentence(table: pd.DataFrame) -> str:
    """Say in one sentence what the results mean, batch size by batch size.

    It names the victim's state, what the strongest attack reached on the undefended gradient and what is left
    of it under each defence, both over the floors, and the accountant. An attack that fails undefended
    credits no defence, and the sentence says so.

    Args:
        table: per-image results, columns of `dpbench.schema.SCHEMA`.
    """
    table = schema.conform(table)
    lines = distinguishing(summary(table))
    lines = lines[~is_floor(lines)]
    measured = lines[lines["images"] > 0]
    if measured.empty:
        return f"There is nothing to say: no attack ended well{_terms(table, lines, measured)}."
    victims = [
        f"against the {_victim(part.iloc[0])}, " + "; ".join(_batch(batch) for _, batch in _by_batch(part))
        for _, part in measured.groupby(["model", "norm", "victim"], dropna=False, sort=False)
    ]
    text = "; ".join(victims)
    return f"{text[0].upper()}{text[1:]}{_terms(table, lines, measured)}."


def _by_batch(part: pd.DataFrame) -> Iterable[tuple[Any, pd.DataFrame]]:
    return part.groupby("batch_size", dropna=False)


def _victim(row: pd.Series) -> str:
    norm = row["norm"]
    return f"{row['victim']} {row['model']}{'' if pd.isna(norm) or norm == 'none' else f' ({norm})'}"


def _batch(lines: pd.DataFrame) -> str:
    defended = lines[is_defended(lines)]
    best = _strongest(lines[~is_defended(lines)])
    head = f"batch of {lines.iloc[0]['batch_size']}: "
    if best is None:
        return f"{head}{_listed(defended)}, but without an undefended result no defence can be credited"
    found = _verdict(best)
    text = f"{head}{attack_label(best)} {_UNDEFENDED[found]} ({_numbers(best)})"
    if defended.empty:
        return f"{text}, and no defence was tried"
    if found == "floor":
        return f"{text}, so nothing here can be credited to a defence"
    return f"{text} and {_listed(defended, best['attack'])}"


def _listed(defended: pd.DataFrame, expected: str | None = None) -> str:
    """Defences by verdict, each judged by the attack that got furthest, named where not the expected one."""
    by: dict[str, list[str]] = {}
    for label, rows in defended.groupby(defended.apply(defense_label, axis=1), sort=False):
        best = _strongest(rows)
        named = "" if best["attack"] == expected else f"{attack_label(best)}, "
        by.setdefault(_verdict(best), []).append(f"{label} ({named}{_short(best)})")
    return " while ".join(
        f"under {_joined(by[name])} {words}" for name, words in _DEFENDED.items() if name in by
    )


def _strongest(rows: pd.DataFrame) -> pd.Series | None:
    if rows.empty:
        return None
    reach = rows["psnr_over_floor_median"].fillna(rows["psnr_median"])
    return rows.loc[reach.fillna(float("-inf")).idxmax()]


def _verdict(row: pd.Series) -> str:
    return verdict(row["psnr_over_floor_median"], row["lpips_to_floor_median"])


def _short(row: pd.Series) -> str:
    """What is over the floor, and the worst case where the median hides it."""
    text = f"{number(row['psnr_over_floor_median'], '+.1f')} dB"
    if _verdict(row) == "floor" and row["psnr_over_floor_max"] >= WORKS_DB:
        text += f", yet {row['psnr_over_floor_max']:+.1f} dB for the most exposed image"
    return text


def _numbers(row: pd.Series) -> str:
    text = f"{number(row['psnr_median'], '.1f')} dB PSNR"
    if not pd.isna(row["psnr_over_floor_median"]):
        text += f", {number(row['psnr_over_floor_median'], '+.1f')} over the best floor"
    if not pd.isna(row["lpips_median"]):
        text += f", LPIPS {row['lpips_median']:.2f}"
        if not pd.isna(row["lpips_floor_mean"]):
            text += f" against {row['lpips_floor_mean']:.2f}"
    return text


def _joined(words: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def _terms(table: pd.DataFrame, lines: pd.DataFrame, measured: pd.DataFrame) -> str:
    """What the numbers rest on: medians, the accountant, what is missing."""
    terms = []
    if (measured["images"] > 1).any():
        terms.append("medians over images")
    accountants = measured.loc[measured["eps_release"].notna(), "accountant"].dropna().unique()
    if len(accountants):
        whole = measured["eps"].notna().any()
        terms.append(
            f"ε is for {'the whole training' if whole else 'the attacked gradient'} "
            f"by the {' and the '.join(accountants)} accountant"
        )
    if len(measured) and table["lpips"].isna().all():
        terms.append("LPIPS is empty, so PSNR alone judges")
    failed = int(lines["failed"].sum())
    if failed:
        terms.append(f"{failed} cell{'s' if failed > 1 else ''} failed")
    return f" ({'; '.join(terms)})" if terms else ""

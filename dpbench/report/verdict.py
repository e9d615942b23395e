"""Verdicts on attacks: made from all measures of all attacks on one setting, of which the worst counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from dpbench.report.evidence import LEVEL, Evidence

WORKS_DB = 3.0
"""An attack rebuilds the images if the median is this far above the strongest floor's PSNR and below its
LPIPS."""
VERDICTS = ("works", "better", "unsure", "guess", "unknown")
"""The images are rebuilt; more is known of them than by a guess; there are too few images to say; there are
enough, and they show no more than a guess does; there is nothing to compare with. Worst for privacy first."""


@dataclass(frozen=True)
class Judged:
    """One attack on one setting.

    Attributes:
        line: its row of the summary.
        evidence: what its images say.
        verdict: one of `VERDICTS`.
    """

    line: pd.Series
    evidence: Evidence
    verdict: str


def verdict(found: Evidence, comparisons: int) -> str:
    """Judge an attack.

    Args:
        found: by all measures.
        comparisons: tests made on the same setting, over all attacks and measures; the level of each is the
            share of `LEVEL` that falls to it (Bonferroni).
    """
    if found.over_floor >= WORKS_DB and not found.lpips_ratio >= 1:
        return "works"
    level = LEVEL / max(comparisons, 1)
    if any(measure.above_chance(level) for measure in found.measures):
        return "better"
    if pd.isna(found.over_floor) and pd.isna(found.lpips_ratio):
        return "unknown"
    return "guess" if all(measure.at_chance(level) for measure in found.measures) else "unsure"


def worst(lines: Sequence[tuple[pd.Series, Evidence]]) -> Judged:
    """The attack that gets furthest on one setting, by its verdict and then by PSNR.

    Args:
        lines: rows of the summary with their evidence, one for each attack on that setting.
    """
    comparisons = sum(len(found.measures) for _, found in lines)
    judged = [Judged(line, found, verdict(found, comparisons)) for line, found in lines]
    return min(judged, key=lambda each: (VERDICTS.index(each.verdict), -_reach(each.line)))


def _reach(line: pd.Series) -> float:
    over, psnr = line["psnr_over_floor_median"], line["psnr_median"]
    return float(over if not pd.isna(over) else psnr if not pd.isna(psnr) else "-inf")

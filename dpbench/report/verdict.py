"""Verdicts on attacks: made from all measures of all attacks on one setting, of which the worst counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pandas as pd

from dpbench.report.evidence import LEVEL, Evidence

WORKS_DB = 3.0
"""An attack rebuilds the images if, in the median, it is this far above the best floor of the same image in
PSNR and below the lowest in LPIPS."""
VERDICTS = ("works", "better", "unsure", "guess", "unknown")
"""The images are rebuilt; more is known of them than by a guess; there are too few images to say; there are
enough, and in them the attack is not seen to do better than a guess; there is nothing to compare with. Worst
for privacy first."""


@dataclass(frozen=True)
class Judged:
    """One attack on one setting.

    Attributes:
        line: its row of the summary.
        evidence: what its images say.
        verdict: one of `VERDICTS`.
        enough: where it is `unsure`, as many images or batches as would tell the attack from a guess if it is
            none better; 0 where their number is not what is wanting.
    """

    line: pd.Series
    evidence: Evidence
    verdict: str
    enough: int = 0


def rebuilds(line: pd.Series) -> bool:
    """Whether a row of the summary is beyond the margin of `WORKS_DB`, however few its images: no test."""
    over, ratio = line["psnr_over_floor_median"], line["lpips_to_floor_median"]
    return bool(over >= WORKS_DB and not ratio >= 1)


def verdict(line: pd.Series, found: Evidence, comparisons: int) -> str:
    """Judge an attack.

    Args:
        line: its row of the summary.
        found: what its images say by all measures.
        comparisons: tests made on the same setting, over all attacks and measures; the level of each is the
            share of `LEVEL` that falls to it (Bonferroni).
    """
    if rebuilds(line):
        return "works"
    over, ratio = line["psnr_over_floor_median"], line["lpips_to_floor_median"]
    level = LEVEL / max(comparisons, 1)
    if any(measure.above_chance(level) for measure in found.measures):
        return "better"
    if pd.isna(over) and pd.isna(ratio):
        return "unknown"
    at_chance = found.complete and all(measure.at_chance(level) for measure in found.measures)
    return "guess" if at_chance else "unsure"


def judge(line: pd.Series, found: Evidence, comparisons: int) -> Judged:
    """`verdict`, and how many images or batches would be enough for one; arguments as there."""
    said = verdict(line, found, comparisons)
    lacking = found.lacking(LEVEL / max(comparisons, 1)) if said == "unsure" else 0
    return Judged(line, found, said, lacking)


def worst(lines: Sequence[tuple[pd.Series, Evidence]]) -> Judged:
    """The attack that gets furthest on one setting, by its verdict and then by PSNR.

    Args:
        lines: rows of the summary with their evidence, one for each attack on that setting.
    """
    comparisons = sum(len(found.measures) for _, found in lines)
    judged = [judge(line, found, comparisons) for line, found in lines]
    found = min(judged, key=lambda each: (VERDICTS.index(each.verdict), -_reach(each.line)))
    if found.verdict != "unsure":
        return found
    return replace(found, enough=max(each.enough for each in judged))  # a guess, only if all attacks are


def _reach(line: pd.Series) -> float:
    over, psnr = line["psnr_over_floor_median"], line["psnr_median"]
    return float(over if not pd.isna(over) else psnr if not pd.isna(psnr) else "-inf")

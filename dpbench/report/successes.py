"""How often an attack was right in a choice: by its candidates, a frontier's ranks, or a gallery."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from dpbench.metrics import GALLERY
from dpbench.privacy.intervals import anytime, clopper_pearson
from dpbench.report.evidence import originals
from dpbench.report.summary import pooled


@dataclass(frozen=True)
class Successes:
    """Right answers of one attack in one setting.

    Attributes:
        measure: `picked`: the informed attacker picked the right candidate; `ranked`: the image that a
            frontier asks about ranked first; `identified`: the original was picked out of its gallery.
        right: of `asked`.
        asked: trials, batches of a frontier, or photographs, each of which counts once.
        stopped: whether what was seen decided when the counting ended, as in a frontier.
    """

    measure: str
    right: int
    asked: int
    stopped: bool = False

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """Of the share: exact where the number asked was fixed beforehand, else one for any moment."""
        ends = anytime if self.stopped else clopper_pearson
        return ends(self.right, self.asked, confidence)


def successes(rows: pd.DataFrame) -> Successes:
    """Count what one attack got in one setting.

    Args:
        rows: of it, all columns of `dpbench.store.columns`.
    """
    stopped = bool(rows["ranked_first"].notna().any())
    if rows["success"].notna().any():
        return Successes("picked", *pooled(rows), stopped)
    if stopped:
        ranked = rows["ranked_first"].dropna()
        return Successes("ranked", int(ranked.sum()), len(ranked), stopped)
    rows = rows[rows["identified"].notna()]
    rows = rows.sort_values(["batch_seed", "attack_seed", "image"], kind="stable")
    return Successes("identified", *pooled(rows[~originals(rows).duplicated()]))


def asked(table: pd.DataFrame) -> pd.DataFrame:
    """The rows whose choices count: all, or in a frontier the one of each batch that it asks about."""
    ranked = table["ranked_first"].notna()
    return table[ranked] if ranked.any() else table


def choices(table: pd.DataFrame) -> pd.Series:
    """Among how many each row's choice is: candidates, a frontier's gallery, or the row's own."""
    among = table["candidates"].fillna(table["gallery_size"])
    return among.mask(table["ranked_first"].notna(), GALLERY)

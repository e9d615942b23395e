"""Does an attack do better than a guess? Exact tests over independent images, one per measure.

A photograph counts once, however many batches, attack seeds or repeats hold it. A guess is whatever can be
said without the gradient: a floor for PSNR and LPIPS; for a choice from a gallery chance, or the floors'
choices where more than the gradient tells the original from the others (`has_exact_chance`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import binom

from dpbench.privacy.intervals import clopper_pearson
from dpbench.report.rows import has_exact_chance

LEVEL = 0.05
"""Chance of a false claim about one attack setting, over all that is compared there."""
_CHANCES = {"identified": "gallery_size", "iip": "iip_chance"}
_OWN, _BLIND = "noise-gradient", ("mean-image", "start")
"""Floors whose choices from a gallery are guesses: the attack fed noise, which is told what the attack is
told, and those that are told nothing. A constant image knows the original's mean colour."""


@dataclass(frozen=True)
class Measure:
    """How often an attack was right by one measure, over independent images.

    Attributes:
        name: `psnr` and `lpips`: nearer the original than the strongest floor; `identified` and `iip`: the
            original was picked out of a gallery.
        right: images of which that is so.
        images: independent images that it was asked of; a tie with the floor is not nearer.
        chance: share that a guess is right in; 1/2 against a floor's PSNR and LPIPS.
        p: chance of a guess to be right as often or more often.
        rival: images of which the strongest floor is right, where it and not `chance` is compared with.
    """

    name: str
    right: int
    images: int
    chance: float
    p: float
    rival: int | None = None

    @property
    def interval(self) -> tuple[float, float]:
        """Exact 95 % interval of the share."""
        return clopper_pearson(self.right, self.images)

    def above_chance(self, level: float) -> bool:
        """Whether it is right more often than a guess, tested at `level`."""
        return self.p <= level

    def at_chance(self, level: float) -> bool:
        """Whether there were images enough to tell, and they speak against much more than a guess.

        Had all images been right, the test would have passed; and the share that they leave possible (the
        upper end of the one-sided interval at `level`) lies below halfway from chance to certainty. A floor's
        share is uncertain, too: the lower end of its interval counts, and each interval has half the level.
        """
        if self.above_chance(level) or self._least > level:
            return False
        if self.rival is None:
            return clopper_pearson(self.right, self.images, 1 - 2 * level)[1] < (1 + self.chance) / 2
        low, _ = clopper_pearson(self.rival, self.images, 1 - level)
        return clopper_pearson(self.right, self.images, 1 - level)[1] < (1 + low) / 2

    @property
    def _least(self) -> float:
        """What `p` would be if it had been right of all images."""
        if self.rival is None:
            return self.chance**self.images
        return 0.5 ** (self.images - self.rival)


@dataclass(frozen=True)
class Evidence:
    """What the images of one condition say.

    Attributes:
        images: independent images.
        measures: one for each measure that there are figures of, and of what a guess gets.
        complete: there is none of which only the attack's figures are there.
    """

    images: int
    measures: tuple[Measure, ...]
    complete: bool = True

    @property
    def strongest(self) -> Measure | None:
        """The measure that speaks most against a guess."""
        return min(self.measures, key=lambda measure: measure.p, default=None)


def evidence(rows: pd.DataFrame, floors: Mapping[str, pd.DataFrame]) -> Evidence:
    """Weigh the rows of one condition.

    The floor with which an attack is compared is one for all images, the strongest: an attack must be nearer
    than each floor by itself. The best of several floors for each image would be no guess that anybody can
    make who does not know the image.

    Args:
        rows: results of one condition that ended well.
        floors: `dpbench.report.rivals.rivals` of the table that they are from.
    """
    rows = rows.sort_values(["batch_seed", "attack_seed", "image"], kind="stable")
    image = originals(rows)
    measures: list[Measure] = []
    complete = True
    beside = {name: floor.reindex(rows.index) for name, floor in floors.items()}
    over = _per_image(beside, "psnr", lambda floor: over_floor(rows["psnr"], floor), image)
    ratio = _per_image(beside, "lpips", lambda floor: to_floor(rows["lpips"], floor), image)
    for name, nearer in (
        ("psnr", {floor: values > 0 for floor, values in over.items()}),
        ("lpips", {floor: values < 1 for floor, values in ratio.items()}),
    ):
        tested = [_tested(name, int(each.sum()), np.full(len(each), 0.5)) for each in nearer.values()]
        if tested:  # the strongest floor is the one that speaks least for the attack
            measures.append(max(tested, key=lambda measure: measure.p))
    for name, chance in _CHANCES.items():
        asked = rows[rows[name].notna() & rows[chance].notna()]
        if has_exact_chance(asked).all():
            asked = asked[~image[asked.index].duplicated()]
            guess = asked[chance].astype(float).to_numpy()
            guess = 1 / guess if chance == "gallery_size" else guess
            found = _tested(name, int(asked[name].sum()), guess) if len(asked) else None
        else:
            found = _beside_floors(name, asked, beside, image)
            complete &= found is not None
        if found is not None:
            measures.append(found)
    return Evidence(image.nunique(), tuple(measures), complete)


def originals(rows: pd.DataFrame) -> pd.Series:
    """The photograph of each row: its place in its data set, or else in its batch."""
    place = ["batch_size", "label_draw", "batch_seed", "image"]
    unknown = rows["original_index"].isna()
    # grouping, not joining words: empty entries are equal to each other
    keys = rows[["data", "original_index"]].assign(**{name: rows[name].where(unknown) for name in place})
    return keys.groupby(list(keys.columns), dropna=False, sort=False).ngroup()


def tail(right: int, chances: np.ndarray) -> float:
    """Chance of at least `right` successes in independent trials with these chances, exactly.

    Example:
        >>> round(tail(2, np.array([0.5, 0.5, 0.5])), 3)
        0.5
        >>> round(tail(1, np.array([0.1, 0.2])), 3)
        0.28
    """
    if np.ptp(chances) == 0:
        return float(binom.sf(right - 1, len(chances), chances[0]))
    counts = np.ones(1)
    for chance in chances:
        counts = np.convolve(counts, (1 - chance, chance))
    return float(counts[right:].sum())


def over_floor(psnr: pd.Series, floor: pd.Series) -> pd.Series:
    """By how many dB above the floor; two exact copies (of a flat image, say) are level."""
    return (psnr - floor).mask(np.isinf(psnr) & (psnr == floor), 0.0)


def to_floor(lpips: pd.Series, floor: pd.Series) -> pd.Series:
    """LPIPS over that of the floor; two exact copies are level."""
    return (lpips / floor).mask((lpips == 0) & (floor == 0), 1.0)


def _per_image(
    floors: Mapping[str, pd.DataFrame],
    metric: str,
    compare: Callable[[pd.Series], pd.Series],
    image: pd.Series,
) -> dict[str, pd.Series]:
    """For each floor the median comparison of each photograph; floors without figures are left out."""
    found = {name: compare(floor[metric]).groupby(image).median().dropna() for name, floor in floors.items()}
    return {name: values for name, values in found.items() if len(values)}


def _beside_floors(
    name: str, asked: pd.DataFrame, beside: Mapping[str, pd.DataFrame], image: pd.Series
) -> Measure | None:
    """Choices against the strongest floor's; None where the attack's own floor lacks a photograph."""
    wanted = image[asked.index].nunique()
    if _OWN not in beside:
        return None
    asked = asked[beside[_OWN].loc[asked.index, name].notna()]
    asked = asked[~image[asked.index].duplicated()]
    if len(asked) < wanted:
        return None
    guesses = [beside[floor].loc[asked.index, name] for floor in (_OWN, *_BLIND) if floor in beside]
    tested = [_paired(name, asked[name], guess) for guess in guesses if guess.notna().all()]
    return max(tested, key=lambda measure: (measure.p, measure.rival))


def _paired(name: str, chosen: pd.Series, rival: pd.Series) -> Measure:
    """Choices against a floor's of the same images: a sign test of those that one of the two got right."""
    own, other = chosen.astype(bool).to_numpy(), (rival >= 0.5).to_numpy()
    gained, lost = int((own & ~other).sum()), int((other & ~own).sum())
    p = float(binom.sf(gained - 1, gained + lost, 0.5)) if gained else 1.0
    return Measure(name, int(own.sum()), len(own), float(other.mean()), p, int(other.sum()))


def _tested(name: str, right: int, chances: np.ndarray) -> Measure:
    return Measure(name, right, len(chances), float(chances.mean()), tail(right, chances))

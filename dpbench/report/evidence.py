"""Does an attack do better than a guess? Exact tests, one per measure.

A guess is whatever can be said without the gradient: a floor for PSNR and LPIPS; for a choice from a gallery
chance, or the floors' choices where more than the gradient tells the original from the others
(`has_exact_chance`).

A photograph counts once, however many batches, attack seeds or repeats hold it. Against a floor a batch of
several photographs counts once, too: one search rebuilt them all, and what makes it come out nearer than
another search, without a gradient to tell them apart, moves all its images together. Against chance they may
count one by one: who knows nothing of the originals picks each as often, whatever was picked for the others.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy.stats import binom

from dpbench.privacy.intervals import clopper_pearson
from dpbench.report.rivals import BEST
from dpbench.report.rows import has_exact_chance

LEVEL = 0.05
"""Chance of a false claim about one attack setting, over all that is compared there."""
MARGIN = 0.25
"""By how much more often than a guess an attack may still be right that is not seen to do better than one."""
MOST = 200
"""Images or batches up to which it is said how many would be enough; a frontier attacks as many at most."""
_CHANCES = {"identified": "gallery_size", "iip": "iip_chance"}
NEEDED = (
    *("data", "label_draw", "batch_size", "batch_seed", "attack_seed", "image", "original_index", "copy_of"),
    *("psnr", "lpips", "identified", "gallery_size", "iip", "iip_chance"),
    *("candidates", "ranked_first", "gallery_labels", "labels", "bn_stats"),
)
"""The columns that are weighed: of a table with all of them each step takes ten times as long."""
_OWN, _BLIND = "noise-gradient", ("mean-image", "start")
"""Floors whose choices from a gallery are guesses: the attack fed noise, which is told what the attack is
told, and those that are told nothing."""


@dataclass(frozen=True)
class Measure:
    """How often an attack was right by one measure, over independent images or batches.

    Attributes:
        name: `psnr` and `lpips`: nearer the original than the strongest guess; `identified` and `iip`: the
            original was picked out of a gallery.
        right: images of which that is so; where `batches`, batches of which the attack, and not the floor,
            is nearer more than half of the photographs, or has picked out more of them.
        tried: independent images, or batches, that it was asked of; a tie with the floor is not right.
        chance: share that a guess is right in; 1/2 against a floor's PSNR and LPIPS, and for batches.
        p: chance of a guess to be right as often or more often.
        rival: images of which the strongest guess is right, where it and not `chance` is compared with; of
            batches those in which it has picked out more.
        batches: whether batches are counted, and not images.
    """

    name: str
    right: int
    tried: int
    chance: float
    p: float
    rival: int | None = None
    batches: bool = False

    @property
    def interval(self) -> tuple[float, float]:
        """Exact 95 % interval of the share."""
        return clopper_pearson(self.right, self.tried)

    def above_chance(self, level: float) -> bool:
        """Whether it is right more often than a guess, tested at `level`."""
        return self.p <= level

    def at_chance(self, level: float) -> bool:
        """Whether there were enough of them to tell, and they speak against much more than a guess.

        Had all been right, the test would have passed; and the share that they leave possible (the
        upper end of the one-sided interval at `level`) lies less than `MARGIN` above chance. A floor's share
        is uncertain, too: the lower end of its interval counts, and each interval has half the level.
        """
        if self.above_chance(level) or self._least > level:
            return False
        if self.rival is None:
            return clopper_pearson(self.right, self.tried, 1 - 2 * level)[1] < self.chance + MARGIN
        low, _ = clopper_pearson(self.rival, self.tried, 1 - level)
        return clopper_pearson(self.right, self.tried, 1 - level)[1] < low + MARGIN

    def enough(self, level: float) -> int:
        """As many as show at `level` that an attack is `at_chance` if it is right as often as a guess.

        0 where not even `MOST` would, as where the strongest guess is right of nearly all.
        """
        share = self.chance if self.rival is None else self.rival / self.tried
        for tried in range(1, MOST + 1):
            right = math.floor(share * tried + 0.5)
            rival = None if self.rival is None else right
            if replace(self, right=right, tried=tried, rival=rival, p=1.0).at_chance(level):
                return tried
        return 0

    @property
    def _least(self) -> float:
        """What `p` would be if it had been right of all images."""
        if self.rival is None:
            return self.chance**self.tried
        return 0.5 ** (self.tried if self.batches else self.tried - self.rival)


@dataclass(frozen=True)
class Evidence:
    """What the images of one condition say.

    Attributes:
        images: independent images.
        measures: one for each measure that there are figures of, and of what a guess gets.
        complete: there is none of which only the attack's figures are there, and all floors are guesses.
    """

    images: int
    measures: tuple[Measure, ...]
    complete: bool = True

    @property
    def strongest(self) -> Measure | None:
        """The measure that speaks most against a guess."""
        return min(self.measures, key=lambda measure: measure.p, default=None)

    def lacking(self, level: float) -> int:
        """As many images, or batches where these are counted, as would show that an attack is at chance.

        0 where there are as many already, so that it is not their number that leaves the question open, and
        where none up to `MOST` would do, or not all floors are guesses.
        """
        batches = any(measure.batches for measure in self.measures)
        asked = [measure for measure in self.measures if measure.batches == batches]
        enough = [measure.enough(level) for measure in asked if self.complete]
        short = any(measure.tried < most for measure, most in zip(asked, enough, strict=False))
        return max(enough) if short and all(enough) else 0


def evidence(rows: pd.DataFrame, floors: Mapping[str, pd.DataFrame]) -> Evidence:
    """Weigh the rows of one condition.

    The floor with which an attack is compared is one for all images, the strongest: an attack must be nearer
    than each floor by itself. The best of several floors for each image would be no guess that anybody can
    make who does not know the image.

    Args:
        rows: results of one condition that ended well, with the columns `NEEDED`.
        floors: `dpbench.report.rivals.rivals` of the table that they are from.
    """
    rows = rows[[*NEEDED]].sort_values(["batch_seed", "attack_seed", "image"], kind="stable")
    image = originals(rows)
    measures: list[Measure] = []
    # the best of all floors may be one that nobody could guess: who is beyond it is beyond a guess, but who
    # is not may be so all the same
    complete = BEST not in floors or floors[BEST].reindex(rows.index).isna().all(axis=None)
    beside = {name: floor.reindex(rows.index) for name, floor in floors.items()}
    batch = rows.groupby(image)["batch_seed"].first()
    over = _per_image(beside, "psnr", lambda floor: over_floor(rows["psnr"], floor), image)
    ratio = _per_image(beside, "lpips", lambda floor: to_floor(rows["lpips"], floor), image)
    for name, nearer in (
        ("psnr", {floor: values > 0 for floor, values in over.items()}),
        ("lpips", {floor: values < 1 for floor, values in ratio.items()}),
    ):
        tested = [_nearer(name, each, batch[each.index]) for each in nearer.values()]
        if tested:  # the strongest guess is the one that speaks least for the attack
            measures.append(max(tested, key=lambda measure: measure.p))
    for name, chance in _CHANCES.items():
        asked = rows[rows[name].notna() & rows[chance].notna()]
        if has_exact_chance(asked).all():
            asked = asked[~image[asked.index].duplicated()]
            guess = asked[chance].astype(float).to_numpy()
            guess = 1 / guess if chance == "gallery_size" else guess
            found = _tested(name, asked[name], guess) if len(asked) else None
        else:
            found = _beside_floors(name, asked, beside, image, batch)
            complete &= found is not None
        if found is not None:
            measures.append(found)
    return Evidence(image.nunique(), tuple(measures), complete)


def originals(rows: pd.DataFrame) -> pd.Series:
    """The photograph of each row: its place in its data set, or else in its batch; of a copy, the first's."""
    place = ["batch_size", "label_draw", "batch_seed", "image"]
    photograph = rows["copy_of"].fillna(rows["original_index"])
    unknown = photograph.isna()
    # grouping, not joining words: empty entries are equal to each other
    named = {name: rows[name].where(unknown) for name in place} if unknown.any() else {}
    keys = rows[["data"]].assign(photograph=photograph, **named)
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


def _nearer(name: str, nearer: pd.Series, batch: pd.Series) -> Measure:
    """Photographs nearer than by a floor, or batches that are so for more than half of theirs."""
    if batch.duplicated().any():
        return _tested(name, nearer.groupby(batch).mean() > 0.5, batches=True)
    return _tested(name, nearer)


def _beside_floors(
    name: str, asked: pd.DataFrame, beside: Mapping[str, pd.DataFrame], image: pd.Series, batch: pd.Series
) -> Measure | None:
    """Choices against the strongest guess's; None where the attack's own floor lacks a photograph."""
    wanted = image[asked.index].nunique()
    if _OWN not in beside:
        return None
    asked = asked[beside[_OWN].loc[asked.index, name].notna()]
    asked = asked[~image[asked.index].duplicated()]
    if len(asked) < wanted:
        return None
    guesses = [beside[floor].loc[asked.index, name] for floor in (_OWN, *_BLIND) if floor in beside]
    of = batch[image[asked.index]].to_numpy()
    tested = [_paired(name, asked[name], guess, of) for guess in guesses if guess.notna().all()]
    return max(tested, key=lambda measure: (measure.p, measure.rival))


def _paired(name: str, chosen: pd.Series, rival: pd.Series, batch: np.ndarray) -> Measure:
    """Choices against a floor's of the same photographs: a sign test of those that one of the two got right.

    Where a batch has several photographs, of batches in which one of the two got more of them right.
    """
    own, other = chosen.astype(bool).to_numpy(), (rival >= 0.5).to_numpy()
    more = pd.Series(own.astype(int) - other).groupby(batch).sum()  # of a batch, or of its only photograph
    gained, lost = int((more > 0).sum()), int((more < 0).sum())
    p = float(binom.sf(gained - 1, gained + lost, 0.5)) if gained else 1.0
    if len(more) < len(own):
        return Measure(name, gained, len(more), 0.5, p, lost, batches=True)
    return Measure(name, int(own.sum()), len(own), float(other.mean()), p, int(other.sum()))


def _tested(
    name: str, right: pd.Series, chances: np.ndarray | float = 0.5, *, batches: bool = False
) -> Measure:
    each = np.broadcast_to(chances, len(right))
    count = int(right.sum())
    return Measure(name, count, len(right), float(each.mean()), tail(count, each), batches=batches)

"""Where measured figures depart, within the tolerances."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.stats import t

from dpbench.report.check import tolerances
from dpbench.report.check.findings import Departure, Findings, Matched, column
from dpbench.report.check.pairs import text
from dpbench.report.compare.intervals import mcnemar
from dpbench.store.columns import columns
from dpbench.system.words import counted

_NETWORK = {"lpips": "lpips_net", "lpips_floor": "lpips_net", "iip": "iip_net", "iip_chance": "iip_net"}
"""What is measured by a network, and where the network's name stands: two scales are not compared."""


def compare(pairs: Matched, by: Sequence[str], found: Findings) -> None:
    """Compare every measured column of pairs that ended well.

    Args:
        pairs: rows of one kind.
        by: the settings in which they differ; means are taken for each alone.
        found: takes what departs.
    """
    for name, known in columns().items():
        there, here = pairs.column(name)
        if known.role != "measured" or (there.isna() & here.isna()).all():
            continue
        usable = pd.Series(True, index=pairs.there.index)
        if name in _NETWORK:
            networks = pairs.column(_NETWORK[name])
            usable = (networks[0] == networks[1]).fillna(False).astype(bool)
            if not usable.all():
                found.left_out.append(f"{name} of {' on '.join(pairs.kind)}: another network, or none")
        lost = usable & (there.isna() != here.isna()) & (name in pairs.both_wrote)
        if lost.any():
            found.departures.append(pairs.departure(name, lost))
        usable &= there.notna() & here.notna()
        if not usable.any():
            continue
        both = pairs[usable]
        if known.dtype == "float64":
            _numbers(name, both, found)
            for _, rows in text(both.here, by).groupby(list(by)) if by else [((), both.here)]:
                which = both.here.index.isin(rows.index)
                _mean(name, both[pd.Series(which, index=both.here.index)], found)
        else:
            _words(name, both, known.dtype == "boolean", found)


def _searched(pairs: Matched) -> np.ndarray:
    """Which pairs are results of a search; a closed form evaluates its objective once."""
    return (column(pairs.there, "iterations").fillna(0) > 1).to_numpy(bool)


def _values(name: str, pairs: Matched) -> tuple[np.ndarray, np.ndarray]:
    values = [rows[name].to_numpy(float) for rows in (pairs.there, pairs.here)]
    if name.startswith("psnr"):
        values = [np.where(pairs.exact, v, np.minimum(v, tolerances.CEILING)) for v in values]
    return values[0], values[1]


def _numbers(name: str, pairs: Matched, found: Findings) -> None:
    x, y = _values(name, pairs)
    searched, exact = _searched(pairs), pairs.exact.to_numpy(bool)
    allowed = np.zeros(len(x))
    for kind in (False, True):
        most, which = tolerances.of_one(name, kind), ~exact & (searched == kind)
        relative = 0.0 if kind else tolerances.DIRECT * np.abs(x[which])
        allowed[which] = math.inf if most is None else np.maximum(most, relative)
    with np.errstate(invalid="ignore"):  # a perfect image has infinite dB
        off = np.where(x == y, 0.0, np.abs(x - y))
    beyond = pd.Series(~(off <= allowed), index=pairs.there.index)
    if beyond.any():
        worst = int(np.argmax(np.where(beyond, off, -1.0)))
        said = f"{x[worst]:.6g} there, {y[worst]:.6g} here"
        found.departures.append(pairs.departure(name, beyond, said, beyond.index[worst]))


def _mean(name: str, pairs: Matched, found: Findings) -> None:
    """Whether the mean difference of a search's results is zero; a batch counts once."""
    x, y = _values(name, pairs)
    loose = _searched(pairs) & ~pairs.exact.to_numpy(bool) & np.isfinite(x) & np.isfinite(y)
    seeds = pairs.here["batch_seed"].to_numpy()[loose]
    batches = pd.Series((y - x)[loose]).groupby(seeds).mean().to_numpy()
    count = len(batches)
    if count < tolerances.LEAST:
        return
    mean = float(batches.mean())
    half = t.ppf((1 + tolerances.CONFIDENCE) / 2, count - 1) * batches.std(ddof=1) / math.sqrt(count)
    if abs(mean) > max(half, tolerances.DIRECT):
        said = f"the mean over {count} batches is off by {mean:+.3g}; rounding explains {half:.3g}"
        found.departures.append(Departure(pairs.kind, name, int(loose.sum()), said))


def _words(name: str, pairs: Matched, is_flag: bool, found: Findings) -> None:
    differs = (pairs.there[name] != pairs.here[name]).astype(bool)
    strictly = differs & (pairs.exact | ~_searched(pairs))
    if strictly.any():
        found.departures.append(pairs.departure(name, strictly))
    elif differs.any() and is_flag:
        there, here = (rows[name].astype(int).to_numpy() for rows in (pairs.there, pairs.here))
        # one search rebuilds a batch, so its images flip together
        gained = pd.Series(here - there).groupby(pairs.here["batch_seed"].to_numpy()).sum()
        lost, won = int((gained < 0).sum()), int((gained > 0).sum())
        if mcnemar(lost, won) < 1 - tolerances.CONFIDENCE:
            batches = counted(lost, "batch", plural="batches")
            said = f"{batches} lost some and {won} gained some, more than rounding explains"
            found.departures.append(Departure(pairs.kind, name, int(differs.sum()), said))

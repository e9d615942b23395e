"""What an attack gains by knowing the defence, image by image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from dpbench.report.compare.differences import CEILING
from dpbench.report.compare.intervals import bootstrap, groups
from dpbench.report.evidence import originals
from dpbench.report.flags.adaptive import paired
from dpbench.report.flags.flag import Results
from dpbench.report.naming import number
from dpbench.report.rows import is_defended
from dpbench.store import schema
from dpbench.system.once import once

GAINS = "What knowing the defence gains"
"""Title of the comparison."""
MARGINS = {"psnr": 0.3, "lpips": 0.01}
"""By how much an attack that knows the defence may be worse and count as no worse: dB, LPIPS."""
_FORMATS = {"psnr": ".1f", "lpips": ".3f"}
_TITLES = {"psnr": "PSNR (dB)", "lpips": "LPIPS"}
_BETTER = {"psnr": 1, "lpips": -1}


@dataclass(frozen=True)
class Gains:
    """The comparison as a table to read.

    Attributes:
        header: titles of its columns; the first two are words.
        rows: one for each attack, defence and strength.
        notes: how to read it.
    """

    header: tuple[str, ...]
    rows: list[tuple[str, ...]]
    notes: list[str]


@once
def gains(table: pd.DataFrame) -> pd.DataFrame:
    """Adaptive less not adaptive, on the same images of the same releases.

    Args:
        table: per-image results, columns of `dpbench.store.columns`.

    Returns:
        A row for each attack, defence and strength that was run both ways: `attack`, `defense` and `batch` in
        words, `images`, `batches` that share no photograph, and for `psnr` (dB, at most 60) and `lpips` the
        means of both (`*_not_adaptive`, `*_adaptive`), the mean difference (`*_gain`), its 95 % interval
        (`*_low`, `*_high`; bootstrap over batches, NaN where there are fewer than six) and `*_verdict`: see
        `verdict`. Empty where nothing was run both ways.
    """
    if "adaptive" in table and table["adaptive"].nunique() < 2:
        return pd.DataFrame()
    results = Results(schema.conform(table))
    rows = results.rebuilt[is_defended(results.rebuilt) & results.rebuilt["adaptive"].notna()]
    knows = rows["adaptive"].astype(bool)
    if knows.all() or not knows.any():
        return pd.DataFrame()
    both = paired(rows[knows], rows[~knows])
    found = []
    for line, own in results.settings(rows.loc[both.index]):
        pairs = both.loc[own.index]
        group = groups(own["batch_seed"], originals(own))
        row = {
            "attack": results.naming.attack(line),
            "defense": results.naming.defence(line),
            "batch": results.batch(line),
            "images": originals(own).nunique(),
            "batches": len(np.unique(group)),
        }
        for measure in MARGINS:
            row |= _compared(measure, pairs, group)
        found.append(row)
    return pd.DataFrame(found)


def verdict(low: float, high: float, margin: float) -> str:
    """What an interval of a gain says, positive being nearer the originals.

    Example:
        >>> [verdict(low, high, 0.3) for low, high in ((0.1, 2), (-0.2, 1), (-1, 1), (-2, -1))]
        ['better', 'no worse', 'undecided', 'worse']
    """
    if np.isnan(low):
        return ""
    if low > 0:
        return "better"
    if low > -margin:
        return "no worse"
    return "worse" if high < -margin else "undecided"


def readable(found: pd.DataFrame) -> Gains | None:
    """`gains` as a table to read; None where there are none."""
    if found.empty:
        return None
    several = found["batch"].nunique() > 1
    header = ["Attack", "Defence", "Images"]
    for measure in MARGINS:
        header += [f"{_TITLES[measure]} not adaptive", "adaptive", "difference (95 %)", "verdict"]
    rows = []
    for line in found.to_dict("records"):
        where = f"{line['defense']}, {line['batch']}" if several else line["defense"]
        cells = [line["attack"], where, f"{line['images']}"]
        for measure, form in _FORMATS.items():
            cells += [number(line[f"{measure}_{which}"], form) for which in ("not_adaptive", "adaptive")]
            ends = [number(line[f"{measure}_{end}"], f"+{form}") for end in ("low", "high")]
            gain = number(line[f"{measure}_gain"], f"+{form}")
            known = line[f"{measure}_verdict"]
            cells += [f"{gain} ({ends[0]} to {ends[1]})" if known else gain, known]
        rows.append(tuple(cells))
    notes = [
        "Adaptive less not adaptive: means over the same images of the same releases, with a 95 % bootstrap "
        "interval over batches that share no photograph, where there are six of them. Each holds by itself",
        f"Better: the interval lies on the nearer side of zero. No worse: it excludes a loss of "
        f"{MARGINS['psnr']:g} dB or {MARGINS['lpips']:g} LPIPS. Worse: it excludes anything less",
        f"PSNR counts at most {CEILING:g} dB",
    ]
    return Gains(tuple(header), rows, notes)


def _compared(measure: str, pairs: pd.DataFrame, group: np.ndarray) -> dict[str, float | str]:
    knowing, ignorant = (pairs[name].to_numpy(float) for name in (measure, f"{measure}_other"))
    if measure == "psnr":
        knowing, ignorant = np.minimum(knowing, CEILING), np.minimum(ignorant, CEILING)
    there = ~(np.isnan(knowing) | np.isnan(ignorant))
    means = [float(each[there].mean()) if there.any() else np.nan for each in (ignorant, knowing)]
    low, high = bootstrap((knowing - ignorant)[there], group[there])
    nearer = sorted((_BETTER[measure] * low, _BETTER[measure] * high))
    return {
        f"{measure}_not_adaptive": means[0],
        f"{measure}_adaptive": means[1],
        f"{measure}_gain": means[1] - means[0],
        f"{measure}_low": low,
        f"{measure}_high": high,
        f"{measure}_verdict": verdict(*nearer, MARGINS[measure]),
    }

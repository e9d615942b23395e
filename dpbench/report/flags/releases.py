"""What is wrong with releases themselves: made twice they differ, they are too long, or they are zero."""

from __future__ import annotations

from collections.abc import Iterator

from dpbench.report.evidence import originals
from dpbench.report.flags.flag import Flag, Results, keys
from dpbench.report.rows import ended_well, is_floor, only
from dpbench.system.words import counted

UNREPEATABLE = "the defence is not deterministic given its seed"
TOO_LONG = "released norm above C"
ZERO = "zero gradient"
LEAST_SHARE = 1e-6
"""Share of the batch's gradient norms below which an image counts as having none."""
_SEVERAL = ("have", "their", "them", "they are")
_SKIPPED = "so there is nothing to attack"
"""What `dpbench.cell.release.released` says of a release of zeros."""


def unrepeatable(results: Results) -> Iterator[Flag]:
    """Defences of which some release, made a second time from the same seed, came out otherwise."""
    asked = only(results.well, results.well["release_repeats"].notna())
    for defence, rows in asked.groupby("defense", sort=False):
        differing = only(rows, ~rows["release_repeats"].astype(bool))
        if len(differing):
            cells = rows["key"].nunique()
            yield Flag(
                UNREPEATABLE,
                f"{defence} does not make the same release twice from the same seed "
                f"({differing['key'].nunique()} of {counted(cells, 'cell')}), so its results cannot be made "
                "again, and attacks on it are not compared on the same release.",
                keys(differing),
            )


def too_long(results: Results) -> Iterator[Flag]:
    """Releases longer than C and the noise explain."""
    asked = only(results.well, results.well["release_norm_limit"].notna())
    for defence, rows in asked.groupby("defense", sort=False):
        above = only(rows, rows["release_norm"] > rows["release_norm_limit"])
        if len(above):
            worst = above.loc[(above["release_norm"] / above["release_norm_limit"]).idxmax()]
            norm, limit = _told_apart(worst["release_norm"], worst["release_norm_limit"])
            cells = rows["key"].nunique()
            yield Flag(
                TOO_LONG,
                f"{defence} releases gradients of norm {norm} where clipping to C = "
                f"{worst['max_grad_norm']:g} and its noise allow {limit} at most "
                f"({above['key'].nunique()} of {counted(cells, 'cell')}), so it does not clip as it says.",
                keys(above),
            )


def _told_apart(one: float, other: float) -> tuple[str, str]:
    """Two different numbers in three digits, or in as many as tell them apart."""
    texts = ((f"{one:.{digits}g}", f"{other:.{digits}g}") for digits in range(3, 18))
    return next(pair for pair in texts if pair[0] != pair[1])


def zero(results: Results) -> Iterator[Flag]:
    """Images without a gradient, and cells that were skipped because their whole release is zero."""
    asked = only(results.well, results.well["image_grad_share"].notna())
    silent = only(asked, asked["image_grad_share"] < LEAST_SHARE)
    if len(silent):
        few = originals(silent).nunique()
        have, their, them, they = ("has", "its", "it", "it is") if few == 1 else _SEVERAL
        yield Flag(
            ZERO,
            f"{few} of {counted(originals(asked).nunique(), 'attacked image')} {have} less than "
            f"{LEAST_SHARE:g} of {their} batch's gradient norms, so hardly anything of {them} is in a "
            f"release, and that {they} missed says nothing of a defence.",
            keys(silent),
        )
    table = only(results.table, ~is_floor(results.table) & ~ended_well(results.table))
    empty = table[table["error"].fillna("").str.contains(_SKIPPED, regex=False)]
    if len(empty):
        defences = ", ".join(empty["defense"].dropna().unique())
        yield Flag(
            ZERO,
            f"{counted(empty['key'].nunique(), 'cell')} ({defences}) had a release of zeros, so there was "
            "nothing to attack, which is no result of a defence.",
            keys(empty),
        )

"""A guess without the gradient gets nearer than the attack, or the attack fails where nothing defends."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from dpbench.report.evidence import evidence, originals, over_floor
from dpbench.report.flags.flag import MARGIN_DB, Flag, Results, keys, listed
from dpbench.report.naming import number
from dpbench.report.rivals import BEST
from dpbench.report.rows import ended_well, is_defended, is_floor, only
from dpbench.report.verdict import Judged, judge
from dpbench.system.words import counted

BEATEN, FAILS = "a floor beats the attack", "the attack fails undefended"


def beaten(results: Results) -> Iterator[Flag]:
    """Defended rows on which a floor is nearer by PSNR (see `MARGIN_DB`) and, if known, as alike by LPIPS.

    `BEST` is none of them: it may be the constant image, which no attack could have handed back.
    """
    defended = only(results.rebuilt, is_defended(results.rebuilt))
    for attack, rows in defended.groupby("attack", sort=False):
        said, beside = [], []
        for line, own in results.settings(rows):
            lead, floor, images = max(
                (_lead(own, floor, name) for name, floor in results.floors.items() if name != BEST),
                default=(0.0, "", 0),
            )
            if lead >= MARGIN_DB:
                said.append(
                    f"{floor} by {number(lead, '.1f')} dB {results.place(line)} ({counted(images, 'image')})"
                )
                beside.append(own)
        if said:
            found = pd.concat(beside)
            alike = ", and no less alike by LPIPS" if found["lpips"].notna().all() else ""
            yield Flag(
                BEATEN,
                f"A guess without the gradient is nearer the originals than {attack} by the median of paired "
                f"PSNR{alike}: {listed(said)}; a better attack could have handed back that guess, so these "
                "rows do not measure the defence alone.",
                keys(found),
            )


def _lead(rows: pd.DataFrame, floor: pd.DataFrame, name: str) -> tuple[float, str, int]:
    """By how many dB the floor is nearer, its name, and on how many images; 0 dB where LPIPS disagrees."""
    floor, image = floor.reindex(rows.index), originals(rows)
    psnr = over_floor(floor["psnr"], rows["psnr"]).groupby(image).median().dropna()
    lpips = (rows["lpips"] - floor["lpips"]).groupby(image).median().dropna()
    if psnr.empty or (len(lpips) and lpips.median() < 0):
        return 0.0, name, len(psnr)
    return float(psnr.median()), name, len(psnr)


def fails(results: Results) -> Iterator[Flag]:
    """Attacks that are not shown to be better than a guess on an undefended gradient, or have no result."""
    bare = only(results.rebuilt, ~is_defended(results.rebuilt))
    for line, rows in results.settings(bare):
        found = evidence(rows, results.floors)
        judged = judge(line, found, len(found.measures))
        said = judged.verdict
        if said not in ("guess", "unsure"):
            continue
        name, images = results.naming.attack(line), counted(found.images, "image")
        lacking = "" if found.complete else ", some of whose floors are missing,"
        shown = {
            "guess": f"{name} is not seen to do better on the undefended gradient than a guess without it "
            f"({images}",
            "unsure": f"{images}{lacking} cannot show "
            f"that {name} does better on the undefended gradient than a guess without it (",
        }[said]
        numbers = f"{number(line['psnr_median'], '.1f')} dB PSNR"
        if not pd.isna(line["psnr_over_floor_median"]):
            numbers += f", {number(line['psnr_over_floor_median'], '+.1f')} dB against the best floor"
        more = _lacking(judged) + _unsolved(results, line)
        yield Flag(
            FAILS,
            f"{shown}{': ' if said == 'guess' else ''}{numbers}; {results.batch(line)}), so nothing that it "
            f"misses under a defence is to that defence's credit.{more}",
            keys(_alike(results, line)),
        )
    yield from _without_result(results)


def _lacking(judged: Judged) -> str:
    """How many images or batches would tell."""
    wanting = "images" if judged.line["batch_size"] == 1 else "batches"
    return f" It takes about {judged.enough} {wanting} to see that one is no better." if judged.enough else ""


def _unsolved(results: Results, line: pd.Series) -> str:
    """What a search of one image leaves open: equations may give back what it does not find.

    `peel` takes one gradient of one image, so neither an update of local steps nor a sum over clients.
    """
    rows = results.table[results.table["batch_size"] == 1]
    honest = rows["threat_model"].fillna("honest") == "honest"
    alone = honest & rows["local_epochs"].isna() & (rows["clients"].fillna(1) == 1)
    if line["batch_size"] != 1 or not alone.any() or (rows["attack"] == "peel").any():
        return ""
    return " For one image, equations may give back what a search does not find: add --attack peel."


def _without_result(results: Results) -> Iterator[Flag]:
    table = only(results.table, ~is_floor(results.table))
    for line, rows in results.settings(only(table, ~is_defended(table))):
        alike = _alike(results, line)
        # an attack that has no result at all credits nobody
        if not ended_well(rows).any() and (ended_well(alike) & is_defended(alike)).any():
            lost = counted(rows["key"].nunique(), "cell")
            yield Flag(
                FAILS,
                f"{results.naming.attack(line)} has no undefended result ({lost} failed or skipped; "
                f"{results.batch(line)}), so nothing that it misses under a defence is to that defence's "
                "credit.",
                keys(alike),
            )


def _alike(results: Results, line: pd.Series) -> pd.DataFrame:
    """Rows of the same attack, defended or not, on the same kind of batch."""
    same = results.table["attack"] == line["attack"]
    for name in ("batch_size", *results.naming.headings):
        column = results.table[name]
        same &= column.isna() if pd.isna(line[name]) else (column == line[name]).fillna(False)
    return only(results.table, same.fillna(False).astype(bool))

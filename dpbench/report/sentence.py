"""What the table means, in one sentence made from its numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from dpbench.report import informed
from dpbench.report.evidence import Measure
from dpbench.report.naming import number
from dpbench.report.no_pictures import of_no_picture
from dpbench.report.notes import fishing
from dpbench.report.rows import ended_well, is_defended, is_floor, of_pictures
from dpbench.report.settings import Results, Setting
from dpbench.report.units import scopes
from dpbench.report.verdict import WORKS_DB, Judged, rebuilds
from dpbench.store import schema
from dpbench.system.once import once
from dpbench.system.words import joined, per_cent, several

_MEASURES = {
    "psnr": "nearer by PSNR than the strongest guess",
    "lpips": "nearer by LPIPS than the strongest guess",
    "identified": "identified",
    "iip": "identified by their features",
}
_OF_BATCHES = {
    "psnr": "mostly nearer by PSNR than the strongest guess",
    "lpips": "mostly nearer by LPIPS than the strongest guess",
    "identified": "with more images identified than by the strongest guess",
    "iip": "with more images identified by their features than by the strongest guess",
}


@once
def sentence(table: pd.DataFrame) -> str:
    """Say in one sentence per victim what the results mean, batch size by batch size.

    It names the victim's state, what the strongest attack reached on the undefended gradient and what is left
    of it under each defence, the accountant, and what an informed attacker gets at most. The strongest
    attack is the one of the worst verdict (`dpbench.report.verdict`) over all measures, among those that read
    the gradient. An attack that fails undefended credits no defence, and the sentence says so.

    Args:
        table: per-image results, columns of `dpbench.store.columns`.
    """
    table = schema.numbered(table)
    # what rebuilds no image, or reads no gradient, is told of only where there is nothing else
    judged = of_pictures(table)
    if is_floor(judged).all() and len(judged) < len(table):
        return " ".join(of_no_picture(table))
    every, table = table, judged
    results = Results.of(table)
    bound = informed.sentence(results.attacked, results.naming)
    if results.measured.empty and bound:
        return bound
    if results.measured.empty:
        others = of_no_picture(every[ended_well(every)])
        which = "No attack that rebuilds images from a gradient"
        which = which if others else "There is nothing to say: no attack"
        return " ".join([f"{which} ended well{_terms(table, results)}.", *others])
    said = [
        f"Against the {victim}, " + "; ".join(_Batch(each).said() for each in settings)
        for victim, settings in results.victims()
    ]
    return ".\n".join(said) + f"{_terms(table, results)}." + (f"\n{bound}" if bound else "")


@dataclass(frozen=True)
class _Batch:
    """One batch size against one victim, in words."""

    setting: Setting

    def said(self) -> str:
        of = self.setting
        head = f"batch of {of.batch_size}: "
        if of.measured.empty:
            return f"{head}no attack ended well"
        if of.bare.empty:
            return f"{head}without an undefended result no defence can be credited"
        best = of.worst(of.bare)
        text = head + self._undefended(best)
        reached = of.reached()
        if best.verdict in ("guess", "unsure") and len(of.lines) > len(of.bare):
            reached = {label: each for label, each in reached.items() if each.verdict in ("works", "better")}
            if not reached:
                return f"{text}, so nothing here can be credited to a defence"
            return text + self._listed(reached, best)
        tried = set(of.labels(of.defended))
        gone = [label for label in of.labels(of.lost[is_defended(of.lost)]).unique() if label not in tried]
        if reached:
            text += self._listed(reached, best)
        elif not gone:
            return f"{text}; no defence was tried"
        return f"{text}; there is no result under {joined(gone)}" if gone else text

    def _undefended(self, best: Judged) -> str:
        attack, images = self.setting.naming.attack(best.line), best.evidence.images
        only = " for this one image" if images == 1 else ""
        results = {
            "works": f"{attack} rebuilds the undefended {_images(images)}",
            "better": f"{attack} does better on the undefended gradient than a guess without it{only}",
            "guess": f"{attack} is not seen to do better on the undefended gradient than a guess without it",
            "unsure": f"{self._lacking(best)} to say whether {attack} does better on the undefended gradient "
            "than a guess without it",
            "unknown": f"there are no floors to judge {attack} on the undefended gradient by",
        }
        return f"{results[best.verdict]} ({_numbers(best)})"

    def _listed(self, reached: Mapping[str, Judged], undefended: Judged) -> str:
        """Defences by verdict, each with the attack that got furthest, named where it is another one."""
        by: dict[str, list[str]] = {}
        places: dict[str, list[int]] = {}
        expected = self.setting.naming.attack(undefended.line)
        tried = {self.setting.naming.attack(row) for _, row in self.setting.defended.iterrows()}
        for place, (label, best) in enumerate(reached.items()):
            places.setdefault(best.verdict, []).append(place)
            attack = self.setting.naming.attack(best.line)
            named = "" if attack == expected else f"{attack}, "
            by.setdefault(best.verdict, []).append(f"{label} ({named}{_short(best)})")
        before = undefended.verdict
        one = undefended.evidence.images == 1
        few = self._lacking(*reached.values())
        an, the, no = "any attack", "an attack", "no attack is"
        if tried == {expected}:
            an, the, no = "it", "it", "it is not"
        results = {
            "works": f"{'it is' if one else 'they are'}{' still' if before == 'works' else ''} rebuilt",
            "better": f"{the}{' still' if before == 'better' else ''} does better than a guess",
            "guess": f"{no} seen to do better than a guess without the gradient",
            "unsure": f"{few} to say whether {an} does better than a guess",
            "unknown": "there are no floors to judge by",
        }
        said = ""
        for verdict, words in results.items():
            if verdict in by:
                gaps = places[verdict][-1] - places[verdict][0] >= len(by[verdict])
                turn = verdict not in ("works", before) and ", but " not in said
                said += f", {'but' if turn else 'and'} under {several(by[verdict], gaps=gaps)} {words}"
        return said

    def _lacking(self, *judged: Judged) -> str:
        """Why it is not known whether an attack does better than a guess."""
        if all(each.evidence.complete for each in judged if each.verdict == "unsure"):
            return f"there are not enough {self.setting.wanting}"
        return "floors are missing"


def _images(count: int) -> str:
    return "image" if count == 1 else "images"


def _short(best: Judged) -> str:
    """What is over the floor, the measure that speaks loudest, and the worst case if the median hides it."""
    over = best.line["psnr_over_floor_median"]
    text = f"{best.evidence.images} {_images(best.evidence.images)}: "
    text += f"{number(best.line['psnr_median'], '.1f')} dB PSNR" if pd.isna(over) else _signed(over)
    if over < WORKS_DB <= best.line["psnr_over_floor_max"] and best.verdict in ("guess", "unsure"):
        text += f", yet {_signed(best.line['psnr_over_floor_max'])} for the most exposed image"
    return "; ".join(filter(None, (text, counted(best.evidence.strongest))))


def _numbers(best: Judged) -> str:
    row, images = best.line, best.evidence.images
    text = f"{images} {_images(images)}: {number(row['psnr_median'], '.1f')} dB PSNR"
    if not pd.isna(row["psnr_over_floor_median"]):
        text += f", {_signed(row['psnr_over_floor_median'])} the best floor"
    if not pd.isna(row["lpips_median"]):
        text += f", LPIPS {row['lpips_median']:.2f}"
        if not pd.isna(row["lpips_floor_median"]):
            text += f" against the lowest floor's {row['lpips_floor_median']:.2f}"
    if not pd.isna(row["label_accuracy"]) and row["labels"] != "known":
        text += f", {per_cent(row['label_accuracy'])}% of its labels right"
    return "; ".join(filter(None, (text, counted(best.evidence.strongest))))


def counted(found: Measure | None) -> str:
    """How often an attack was right by a measure, with the interval and what a guess gets; empty for None."""
    if found is None:
        return ""
    low, high = map(per_cent, found.interval)
    guess = f"by chance {100 * found.chance:.3g} %"
    if found.rival is not None:
        guess = f"by the strongest guess {found.rival} of {found.tried}"
        guess = f"with fewer in {found.rival}" if found.batches else guess
    share = f"{found.right} of {found.tried} "
    if found.batches:
        share += f"{'batch' if found.tried == 1 else 'batches'} {_OF_BATCHES[found.name]}"
    else:
        share += _MEASURES[found.name]
    return f"{share}, 95 % interval {low} to {high} %, {guess}"


def _signed(decibels: float) -> str:
    return f"{number(abs(decibels), '.1f')} dB {'below' if decibels < 0 else 'above'}"


def _terms(table: pd.DataFrame, results: Results) -> str:
    """What the numbers rest on: medians, tests, the accountant, what is missing."""
    terms, measured, found = [], results.measured, results.found.values()
    if (measured["images"] > 1).any():
        terms.append("medians over images")
    if fished := fishing(table):
        terms.append(fished)
    if measured["psnr_over_floor_median"].notna().any():
        terms.append("the best floor may be a constant image made from the original, which is no guess")
    if any(each.measures for each in found):
        terms.append("exact tests at 5 %, corrected for all measures and attacks of a setting")
    if lacking := _lacking(results):
        terms.append(lacking)
    if any(rebuilds(line) for _, line in measured.iterrows()):
        terms.append(f"rebuilt is a margin of {WORKS_DB:g} dB and no test")
    if any(each.images == 1 for each in found):
        terms.append("one image says nothing of others")
    accountants = {scope: part["accountant"].dropna().unique() for scope, part in scopes(measured).items()}
    budgets = [
        f"for {scope} by the {' and the '.join(names)} accountant"
        for scope, names in accountants.items()
        if len(names)
    ]
    if budgets:
        terms.append(f"ε is {' or '.join(budgets)}")
    if len(measured) and table["lpips"].isna().all():
        terms.append("LPIPS is empty")
    failed = table.loc[~ended_well(table), "key"].nunique()
    if failed:
        terms.append(f"{failed} cell{'s have' if failed > 1 else ' has'} no result")
    return f" ({'; '.join(terms)})" if terms else ""


def _lacking(results: Results) -> str:
    """How many images or batches would be enough where there are too few; empty where that is nowhere so."""
    most: dict[str, int] = {}
    for _, settings in results.victims():
        for setting in settings:
            if not setting.bare.empty:
                for each in (setting.worst(setting.bare), *setting.reached().values()):
                    most[setting.wanting] = max(most.get(setting.wanting, 0), each.enough)
    said = [f"{enough} {wanting}" for wanting, enough in most.items() if enough]
    return (
        f"it takes about {' or '.join(said)} to see that an attack is no better than a guess" if said else ""
    )

"""What stands under a table of results."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import pandas as pd

from dpbench.metrics.perceptual import SMALLEST
from dpbench.privacy.rounding import up
from dpbench.privacy.vouched import vouched
from dpbench.report.evidence import originals
from dpbench.report.exceedances import compared, exceedances
from dpbench.report.naming import settings, settings_of
from dpbench.report.rows import ended_well, is_defended, is_floor, is_guessed, is_of_attack, only
from dpbench.report.summary import numbered
from dpbench.report.units import protected, scopes
from dpbench.system.words import joined

_SAID_ELSEWHERE = ("eps", "eps_release", "noise_multiplier", "delta", "eps_scope", "accountant")
"""Settings of a defence that names, columns or the note on budgets tell."""


def notes(
    table: pd.DataFrame, attacked: pd.DataFrame, accountant: str | None, shown: Collection[str]
) -> list[str]:
    """Say what is the same in the whole sheet, what its columns mean, and what is missing.

    Args:
        table: per-image results of the sheet.
        attacked: their summary without floors.
        accountant: what computed the budgets; None where there are none.
        shown: the columns of the summary that the sheet has.
    """
    scene = settings_of("batch", leave_out=("batch_size",))
    # an empty one is another one: a victim that is trained in whole, or whose accuracy is not known
    words = _same(attacked, (*(name for name in scene if attacked[name].notna().all()), "labels"))
    accuracy = attacked["victim_accuracy"].unique()
    if len(accuracy) == 1 and not pd.isna(accuracy[0]):
        words.append(f"the victim's accuracy {accuracy[0]:.0%} (CIFAR-10, test set)")
    said = [", ".join(words)] if words else []
    said += _in_part(table)
    if measures := _measures(shown):
        said.append(measures)
    if "label_accuracy" in shown and (attacked["labels"] != "known").any():
        said.append("labels is the share of labels that the attack had right")
    said += _defences(attacked)
    private = attacked[attacked["eps_release"].notna()]
    if len(private):
        words = [f"ε is the budget of {' or of '.join(scopes(private))}"]
        words += [f"accountant {accountant}"] if accountant else []
        words += [f"δ {up(value, 6)}" for value in sorted(private["delta"].dropna().unique())]
        words += [f"{word} adjacency" for word in private["adjacency"].dropna().unique()]
        said.append(", ".join(words))
    unchecked = table.loc[table["noise_unchecked"].fillna(False).astype(bool), "defense"].unique()
    said += [vouched(name).removesuffix(".") for name in unchecked]
    if "rero_release" in shown and attacked["rero_release"].notna().any():
        said.append(
            f"bound (ReRo): the largest share of cases in which an attacker can be right about "
            f"{protected(private)}, if it is right in 10 % of them without the release"
        )
    if (private["inclusion"] < 1).any():
        said.append(
            "with q below 1 the sample was drawn for each release: ε release and bounds are for attackers "
            "who do not know which releases hold it"
        )
    galleries = attacked["gallery_size"].dropna().unique()
    if "identified_share" in shown and len(galleries):
        sizes = joined([f"{size:g}" for size in sorted(galleries)])
        said.append(
            f"identified: images whose original was picked out of a gallery of {sizes}, of all that were "
            "attacked"
        )
    if _repeated(table):
        said.append("an image that was attacked several times counts as often, in medians and in counts")
    chances = attacked["iip_chance"].dropna()
    if "iip" in shown and len(chances):
        blind = joined([f"{chance:.1%}" for chance in sorted(chances.round(3).unique())])
        said.append(
            f"IIP: the share identified by a network's features (Yin et al. 2021); blind choices {blind}"
        )
    if "success" in shown and attacked["success"].notna().any():
        said.append(
            "picked: trials in which the informed attacker picked the right one of its n candidates, of all "
            "trials" + ("; bound 1/n: the bound at prior 1/n" if "success_bound" in shown else "")
        )
    if "membership" in shown and attacked["membership"].notna().any():
        said.append(
            "member: the informed attacker's share of right answers to whether the sample is in the batch, "
            "half of them by guessing"
        )
    if "accuracy_drop" in shown and attacked["accuracy_drop"].notna().any():
        said.append(
            "added parameters, accuracy drop and loss rise (nat): of the model that a malicious server sent, "
            "against the victim's; a client could measure them"
        )
    if fished := fishing(table):
        said.append(fished)
    said += _above_bounds(table, attacked)
    if table["psnr"].notna().any() and table["lpips"].isna().all():
        side = SMALLEST["alex"]
        said.append(
            f"LPIPS is empty: it takes pictures of {side} x {side} px or more, and its trained trunk has to "
            "be there"
        )
    nets = table["lpips_net"].dropna().unique()
    if len(nets):
        said.append(f"LPIPS trunk: {', '.join(nets)}")
    failed = table[~ended_well(table)]
    if len(failed):
        reasons = failed["error"].dropna().unique()
        first = f"; the first reason: {reasons[0].rstrip('.')}" if len(reasons) else ""
        cells = failed["key"].nunique()
        said.append(f"{cells} cell{'s have' if cells > 1 else ' has'} no result{first}")
    return said


def _repeated(table: pd.DataFrame) -> bool:
    """Whether some row of the sheet has several results of one image: of several attack seeds, say."""
    rows = only(table, is_of_attack(table))
    images = pd.DataFrame({"condition": numbered(rows), "image": originals(rows)})
    return bool(images.duplicated().any())


def _in_part(table: pd.DataFrame) -> list[str]:
    """How much of the model is trained, where that is not all; one line for each such victim."""
    counts = table[["trained_parameters", "frozen_parameters"]].dropna().drop_duplicates()
    return [
        f"{trained:,} of {trained + frozen:,} parameters are trained and sent, the others are frozen"
        for trained, frozen in counts.astype(int).itertuples(index=False)
    ]


def fishing(table: pd.DataFrame) -> str:
    """How many of its images a fishing server has heard; empty where it heard all, or there is none."""
    guessed = is_guessed(table) & ~is_floor(table) & ended_well(table)
    rows = table[(table["threat_model"] == "fishing").fillna(False) & ~is_floor(table) & ended_well(table)]
    if not guessed.any():
        return ""
    every, heard = (originals(each).nunique() for each in (rows, rows[~guessed[rows.index]]))
    return (
        f"of the fishing server's images those count that it fishes for, {heard} of {every}: the others it "
        "guesses by the public mean image"
    )


def _measures(shown: Collection[str]) -> str:
    """What the numbers of the images are."""
    known = {"psnr": "PSNR (dB, higher leaks more)", "lpips": "LPIPS (lower leaks more)"}
    words = [word for metric, word in known.items() if f"{metric}_median" in shown]
    worst = [name for name, column in (("max", "psnr_max"), ("min", "lpips_min")) if column in shown]
    said = []
    if words:
        said.append(f"{' and '.join(words)}: {'a median' if len(words) == 1 else 'medians'} over images")
    if worst:
        said.append(f"{' and '.join(worst)}: the most exposed image's")
    if "psnr_over_floor_median" in shown:
        said.append("over floor: the median of PSNR minus the best floor of the same image")
    return "; ".join(said)


def _same(rows: pd.DataFrame, names: tuple[str, ...]) -> list[str]:
    """The settings that have one value in all rows that have any."""
    values = {name: rows[name].dropna().unique() for name in names}
    return settings({name: found[0] for name, found in values.items() if len(found) == 1}, names)


def details(attacked: pd.DataFrame) -> list[str]:
    """One line with the settings in which the rows of an attack agree, for names leave them out."""
    names = settings_of("attack", leave_out=("threat_model", "labels", "adaptive"))
    return _agreed("attacks", attacked.groupby("attack", sort=False), names)


def _defences(attacked: pd.DataFrame) -> list[str]:
    """Likewise of the defences."""
    names = settings_of("defence", leave_out=_SAID_ELSEWHERE)
    return _agreed("defences", attacked[is_defended(attacked)].groupby("defense", sort=False), names)


def _agreed(kind: str, groups: Iterable[tuple[str, pd.DataFrame]], names: tuple[str, ...]) -> list[str]:
    said = {name: ", ".join(_same(rows, names)) for name, rows in groups}
    words = [f"{name} {text}" for name, text in said.items() if text]
    return [f"settings of {kind}: {'; '.join(words)}"] if words else []


def _above_bounds(table: pd.DataFrame, attacked: pd.DataFrame) -> list[str]:
    every = len(compared(attacked))
    above = sum(int((attacked[f"{c}_low"] > attacked[f"{c}_bound"]).sum()) for c in ("success", "membership"))
    if not above:
        return []
    corrected = exceedances(table)
    said = (
        f"{above} of {every} intervals (95 %) lie above their bound; chance alone puts up to one in forty "
        f"there. Corrected for their number (Bonferroni), {len(corrected) or 'none'} of them "
        f"{'do' if len(corrected) > 1 else 'does'}"
    )
    if corrected:
        said += f", which is an error in a defence, its accounting or the bound: {'; '.join(corrected)}"
    return [said]

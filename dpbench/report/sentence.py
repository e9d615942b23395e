"""What the table means, in one sentence made from its numbers."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from dpbench.cell.grid import LABELS_ONLY
from dpbench.report import informed
from dpbench.report.labels import (
    attack_label,
    conditions,
    defense_label,
    distinguishing,
    is_defended,
    is_floor,
    number,
    only_labels,
    varying_conditions,
)
from dpbench.report.summary import summary
from dpbench.store import schema

WORKS_DB = 3.0
"""An attack works if its median image is this far above the best floor's PSNR and below the lowest LPIPS."""
FLOOR_DB = 1.0
"""Up to this much above the best floor in PSNR, an attack is no better than a guess, unless LPIPS says so."""
FLOOR_LPIPS = 2 / 3
"""Then LPIPS must be at most this share of the lowest floor's: at 32 pixels one noise is often a tenth nearer
to the original than another, but from two thirds on outlines can be seen."""

SHOWN = 4
"""Defences of one verdict that are all named; of more, the first and the last."""

_VICTIM = ["model", "norm", "victim", "threat_model"]


def verdict(over_floor: float, lpips_ratio: float) -> str:
    """Judge an attack by what it has over the floors.

    Args:
        over_floor: median over images of PSNR minus the best floor of the same image, dB.
        lpips_ratio: median of LPIPS over the lowest floor of the same image; NaN where LPIPS is empty.

    Returns:
        `works`, `partly`, `floor`, or `unknown` without floors.

    Example:
        >>> verdict(7.0, 0.3), verdict(7.0, 1.2), verdict(0.5, 0.4), verdict(0.5, 0.8)
        ('works', 'partly', 'partly', 'floor')
    """
    if pd.isna(over_floor):
        return "unknown"
    if over_floor >= WORKS_DB and not lpips_ratio >= 1:
        return "works"
    return "floor" if over_floor <= FLOOR_DB and not lpips_ratio <= FLOOR_LPIPS else "partly"


def sentence(table: pd.DataFrame) -> str:
    """Say in one sentence per victim what the results mean, batch size by batch size.

    It names the victim's state, what the strongest attack reached on the undefended gradient and what is left
    of it under each defence, both over the floors, and the accountant; then what an informed attacker gets at
    most. An attack that fails undefended
    credits no defence, and the sentence says so.

    Args:
        table: per-image results, columns of `dpbench.store.columns`.
    """
    table = schema.conform(table)
    # the attack that rebuilds no image is judged by its labels, and only where it is alone
    labels_alone = only_labels(table)
    if not is_floor(table[~labels_alone]).all():
        table = table[~labels_alone]
    elif labels_alone.any():
        return _restored(table[table["attack"] == LABELS_ONLY])
    lines = distinguishing(summary(table))
    attacked = lines[~is_floor(lines)].assign(threat_model=lambda rows: rows["threat_model"].fillna("honest"))
    lines = attacked[attacked["threat_model"] != "informed"].sort_values("threat_model", kind="stable")
    bound = informed.sentence(attacked)
    measured = lines[lines["images"] > 0]
    if measured.empty and bound:
        return bound
    if measured.empty:
        return f"There is nothing to say: no attack ended well{_terms(table, lines, measured)}."
    varying = [name for name in varying_conditions(lines) if name not in _VICTIM]
    said = [
        f"Against the {_victim(part.iloc[0])}, "
        + "; ".join(_batch(batch, varying) for _, batch in part.groupby("batch_size", dropna=False))
        for _, part in lines.groupby(_VICTIM, dropna=False, sort=False)
    ]
    return ".\n".join(said) + f"{_terms(table, lines, measured)}." + (f"\n{bound}" if bound else "")


def _restored(table: pd.DataFrame) -> str:
    said = []
    for (defense, rule), rows in table.groupby(["defense", "label_rule"], dropna=False, sort=False):
        name = "the labels it was told" if pd.isna(rule) else f"the {rule} rule"
        right = number(rows["label_correct"].astype("float64").mean(), ".1%")
        said.append(f"{right} of the labels by {name}{'' if defense == 'none' else f' under {defense}'}")
    return f"Restored, over all batches: {', '.join(said)}."


def _victim(row: pd.Series) -> str:
    norm = row["norm"]
    name = f"{row['victim']} {row['model']}{'' if pd.isna(norm) or norm == 'none' else f' ({norm})'}"
    return f"{name} with a layer the server planted" if row["threat_model"] == "malicious-linear" else name


def _batch(lines: pd.DataFrame, varying: Sequence[str]) -> str:
    head = f"batch of {lines.iloc[0]['batch_size']}: "
    measured, lost = lines[lines["images"] > 0], lines[lines["images"] == 0]
    bare, defended = measured[~is_defended(measured)], measured[is_defended(measured)]
    if measured.empty:
        return f"{head}no attack ended well"
    if bare.empty:
        return f"{head}without an undefended result no defence can be credited"
    best = _strongest(bare)
    found = _verdict(best)
    them = "image" if lines.iloc[0]["batch_size"] == 1 and best["images"] == 1 else "images"
    attack = attack_label(best)
    if varying:
        attack += f" ({', '.join(conditions(best, varying))})"
    results = {
        "works": f"{attack} rebuilds the undefended {them}",
        "partly": f"{attack} rebuilds the undefended {them} only in part",
        "floor": f"{attack} does no better on the undefended gradient than a guess without it",
        "unknown": f"there are no floors to judge {attack} on the undefended gradient by",
    }
    text = f"{head}{results[found]} ({_numbers(best)})"
    if found == "floor":
        return f"{text}, so nothing here can be credited to a defence"
    reached = set(_labels(defended))
    gone = [label for label in _labels(lost[is_defended(lost)]).unique() if label not in reached]
    if not defended.empty:
        text += _listed(defended, best, them)
    elif not gone:
        return f"{text}; no defence was tried"
    return f"{text}; there is no result under {_joined(gone)}" if gone else text


def _listed(defended: pd.DataFrame, undefended: pd.Series, them: str) -> str:
    """Defences by verdict, each judged by the attack that got furthest, named where not the expected one."""
    by: dict[str, list[str]] = {}
    for label, rows in defended.groupby(_labels(defended), sort=False):
        best = _strongest(rows)
        named = "" if best["attack"] == undefended["attack"] else f"{attack_label(best)}, "
        by.setdefault(_verdict(best), []).append(f"{label} ({named}{_short(best)})")
    before = _verdict(undefended)
    are = "it is" if them == "image" else "they are"
    who = "no attack does" if defended["attack"].nunique() > 1 else "the attack does no"
    results = {
        "works": f"{are}{' still' if before == 'works' else ''} rebuilt",
        "partly": f"{are} rebuilt in part",
        "floor": f"{who} better than a guess without the gradient",
        "unknown": "there are no floors to judge by",
    }
    said = ""
    for name, words in results.items():
        if name in by:
            turn = name not in ("works", before) and ", but " not in said
            said += f", {'but' if turn else 'and'} under {_several(by[name])} {words}"
    return said


def _labels(lines: pd.DataFrame) -> pd.Series:
    return pd.Series([defense_label(row) for row in lines.to_dict("records")], index=lines.index)


def _strongest(rows: pd.DataFrame) -> pd.Series:
    reach = rows["psnr_over_floor_median"].fillna(rows["psnr_median"])
    return rows.loc[reach.fillna(float("-inf")).idxmax()]


def _verdict(row: pd.Series) -> str:
    return verdict(row["psnr_over_floor_median"], row["lpips_to_floor_median"])


def _short(row: pd.Series) -> str:
    """What is over the floor, and the worst case where the median hides it."""
    over = row["psnr_over_floor_median"]
    text = f"{number(row['psnr_median'], '.1f')} dB PSNR" if pd.isna(over) else _signed(over)
    if _verdict(row) == "floor" and row["psnr_over_floor_max"] >= WORKS_DB:
        text += f", yet {_signed(row['psnr_over_floor_max'])} for the most exposed image"
    return text


def _signed(decibels: float) -> str:
    return f"{number(abs(decibels), '.1f')} dB {'below' if decibels < 0 else 'above'}"


def _numbers(row: pd.Series) -> str:
    text = f"{number(row['psnr_median'], '.1f')} dB PSNR"
    if not pd.isna(row["psnr_over_floor_median"]):
        text += f", {_signed(row['psnr_over_floor_median'])} the best floor"
    if not pd.isna(row["lpips_median"]):
        text += f", LPIPS {row['lpips_median']:.2f}"
        if not pd.isna(row["lpips_floor_median"]):
            text += f" against the lowest floor's {row['lpips_floor_median']:.2f}"
    if not pd.isna(row["label_accuracy"]) and row["labels"] != "known":
        text += f", {row['label_accuracy']:.0%} of its labels right"
    return text


def _several(settings: Sequence[str]) -> str:
    """All of them, or the first and the last: they are in order of their budgets."""
    if len(settings) <= SHOWN:
        return _joined(settings)
    return f"{settings[0]} to {settings[-1]}, {len(settings)} settings in all,"


def _joined(words: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def _terms(table: pd.DataFrame, lines: pd.DataFrame, measured: pd.DataFrame) -> str:
    """What the numbers rest on: medians, the accountant, what is missing."""
    terms = []
    if (measured["images"] > 1).any():
        terms.append("medians over images")
    accountants = measured.loc[measured["eps_release"].notna(), "accountant"].dropna().unique()
    if len(accountants):
        whole = measured["eps"].notna().any()
        terms.append(
            f"ε is for {'the whole training' if whole else 'the attacked gradient'} "
            f"by the {' and the '.join(accountants)} accountant"
        )
    if len(measured) and table["lpips"].isna().all():
        terms.append("LPIPS is empty, so PSNR alone judges")
    failed = int(lines["failed"].sum())
    if failed:
        terms.append(f"{failed} cell{'s have' if failed > 1 else ' has'} no result")
    return f" ({'; '.join(terms)})" if terms else ""

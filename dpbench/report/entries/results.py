"""The results in an entry: one for each setting of a run, with the strongest attack on it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from dpbench.privacy import PRIOR_SUCCESS
from dpbench.report.compare.settings import LABELS, SITUATION, canonical, of_attacks, really_run
from dpbench.report.evidence import originals, over_floor
from dpbench.report.rows import is_floor, is_of_attack, only_labels, ordered
from dpbench.report.successes import Successes, asked, choices, successes
from dpbench.store.columns import columns, conditions
from dpbench.system import digest

LEVEL = 0.05
_BUDGET = ("adjacency", "eps", "eps_scope", "eps_release", "delta", "sample_rate", "steps", "train_size")
_BUDGET = (*_BUDGET, "train_batch_size", "epochs", "accountant")
_PHOTOGRAPH = "_photograph"
_RECIPE = ("train_size", "train_batch_size", "epochs")


@dataclass(frozen=True)
class Setting:
    """The rows of one setting: batch, defence and what the attacker has.

    Attributes:
        id: 8 hexadecimal digits, a hash of the setting.
        rows: attacks that ended well.
        texts: their settings, as `dpbench.report.compare.settings.canonical` has them.
    """

    id: str
    rows: pd.DataFrame
    texts: pd.DataFrame


def settings(table: pd.DataFrame) -> list[Setting]:
    """The settings of a run, in the order of other tables.

    Args:
        table: per-image results, columns of `dpbench.store.columns`.
    """
    usable = table[is_of_attack(table) & ~is_floor(table) & ~only_labels(table)]
    usable = ordered(usable.sort_values(["batch_seed", "attack_seed", "image"], kind="stable"))
    usable = usable.reset_index(drop=True)
    if usable.empty:
        return []
    usable = usable.assign(**{_PHOTOGRAPH: originals(usable)})
    texts = canonical(usable)
    # what differs in a label alone is kept apart here: an entry states the label, too
    labels = [name for name in LABELS if name in usable]
    setting = texts[[name for name in really_run() if name in texts]]
    setting = setting.assign(**{name: usable[name].astype(str) for name in labels})
    numbers = setting.groupby(list(setting), dropna=False, sort=False).ngroup()
    found = []
    for _, rows in usable.groupby(numbers, sort=False):
        head = rows.iloc[0]  # without what is empty: a column that a later version adds changes no id
        described = setting.loc[rows.index[0]].drop([name for name in labels if pd.isna(head[name])]).dropna()
        found.append(
            Setting(
                digest.described({n: str(v) for n, v in described.items()})[:8], rows, texts.loc[rows.index]
            )
        )
    return found


def result(setting: Setting, utility: pd.DataFrame | None = None) -> dict[str, Any]:
    """Sum up a setting.

    Args:
        setting: of `settings`.
        utility: `utility.csv` of the run, where there is one.

    Returns:
        As `entry.schema.json` has it: plain values, None for what is not known, infinities as text.
    """
    rows, texts = setting.rows, setting.texts
    head = rows.iloc[0]
    really = really_run()
    protection = [name for name in conditions("defence") if name in really and name != "defense"]
    guaranteed = not pd.isna(head["eps_release"])
    scene = [n for n in (*conditions("batch"), *SITUATION) if n != "threat_model" and not pd.isna(head[n])]
    known = columns()
    attacks = [name for name in of_attacks() if name in texts and known[name].undefended]
    variants = [
        (part, texts.loc[part.index[0]])
        for _, part in rows.groupby(texts.groupby(list(of_attacks()), dropna=False).ngroup(), sort=False)
    ]
    found = {
        "id": setting.id,
        "threat_model": plain(head["threat_model"]),
        "scene": {name: plain(head[name]) for name in scene},
        "protocol": _digest(text[attacks] for _, text in variants),
        "attacks": sorted(rows["attack"].unique()),
        "defence": {
            "name": head["defense"],
            "parameters": {
                name: plain(head[name])
                for name in protection
                if not pd.isna(head[name]) and name not in ("sample_rate", "steps")
            },
        },
        "guarantee": _guarantee(head) if guaranteed else None,
        "batch_seeds": sorted(int(seed) for seed in rows["batch_seed"].dropna().unique()),
    }
    return found | _strongest([part for part, _ in variants], head) | {"utility": _utility(head, utility)}


def _digest(variants: Any) -> str:
    """What attacked: the attacks with all their settings but those that only a defence brings."""
    found = {repr(sorted(text.dropna().to_dict().items())) for text in variants}
    return digest.described({"variants": "\n".join(sorted(found))})[:8]


def _guarantee(head: pd.Series) -> dict[str, Any]:
    """The budget, the sampling that it counts on, and the sampling of what was attacked."""
    drawn = not pd.isna(head["inclusion"]) and head["inclusion"] < 1
    of_training = not pd.isna(head["eps"])
    return {name: plain(head[name]) for name in _BUDGET if name in head} | {
        "sampler": {
            "assumed": "poisson" if of_training or drawn else "none",
            "actual": "poisson" if drawn else "fixed batch",
        }
    }


def _strongest(variants: Sequence[pd.DataFrame], head: pd.Series) -> dict[str, Any]:
    """The attack that gets furthest: most often right, or else furthest above the floors."""
    counted = [successes(rows) for rows in variants]
    tested = sum(each.asked > 0 for each in counted)
    best = max(range(len(variants)), key=lambda i: _reach(variants[i], counted[i]))
    rows, found = variants[best], counted[best]
    success = None
    if found.asked:
        # all attacks' intervals hold together, and so does what they say of the most successful one
        ends = [each.interval(1 - LEVEL / tested) for each in counted if each.asked]
        success = {
            "measure": found.measure,
            "right": found.right,
            "asked": found.asked,
            "share": found.right / found.asked,
            "low": max(low for low, _ in ends),
            "high": max(high for _, high in ends),
            "chance": plain((1 / choices(asked(rows)).astype(float)).mean()),
        }
    return {
        "strongest": {
            "attack": rows["attack"].iloc[0],
            "settings": {n: plain(rows[n].iloc[0]) for n in of_attacks()[1:] if not pd.isna(rows[n].iloc[0])},
            "images": len(rows),
            "photographs": int(rows[_PHOTOGRAPH].nunique()),
            "success": success,
            "psnr": plain(rows["psnr"].median()),
            "psnr_max": plain(rows["psnr"].max()),
            "lpips": plain(rows["lpips"].median()),
            "psnr_over_floor": plain(over_floor(rows["psnr"], rows["psnr_floor"]).median()),
        },
        "bound": _bound(rows, head),
    }


def _reach(rows: pd.DataFrame, found: Successes) -> tuple[float, float, float]:
    over, psnr = over_floor(rows["psnr"], rows["psnr_floor"]).median(), rows["psnr"].median()
    share = found.right / found.asked if found.asked else -1.0
    return share, *(-math.inf if pd.isna(value) else float(value) for value in (over, psnr))


def _bound(rows: pd.DataFrame, head: pd.Series) -> dict[str, float] | None:
    """The ReRo bound on every attacker, at the prior that it is for."""
    if rows["success_bound"].notna().any():
        return {"success": plain(rows["success_bound"].max()), "prior": 1 / float(head["candidates"])}
    if pd.isna(head["rero_release"]):
        return None
    return {"success": plain(head["rero_release"]), "prior": PRIOR_SUCCESS}


def _utility(head: pd.Series, utility: pd.DataFrame | None) -> list[dict[str, Any]]:
    """The accuracy of models trained under this defence, by model and training."""
    if utility is None or utility.empty:
        return []
    really, known = really_run(), columns()
    names = [n for n in conditions("defence") if n in really and n in utility and n in head]
    if pd.isna(head["sample_rate"]):  # without a guarantee it says nothing of a training
        names = [name for name in names if name not in ("sample_rate", "steps")]
    wanted = canonical(head.to_frame().T.astype({n: known[n].dtype for n in head.index if n in known}))
    there = canonical(utility.assign(eps_release=pd.NA))
    same = pd.Series(True, index=utility.index)
    for name in names:
        value = wanted[name].iloc[0]
        same &= there[name].isna() if pd.isna(value) else there[name] == value
    trained = utility[same & utility["accuracy"].notna()]
    by = ["utility_model", *(name for name in _RECIPE if name in trained)]
    return [
        dict(zip(by, map(plain, key), strict=True))
        | {
            "seeds": len(values),
            "mean": plain(values.mean()),
            "min": plain(values.min()),
            "max": plain(values.max()),
        }
        for key, values in trained.groupby(by, dropna=False)["accuracy"]
    ]


def plain(value: Any) -> Any:
    """A value that JSON can hold: None where it is missing, text for an infinity.

    Example:
        >>> plain(float("inf")), plain(float("nan")), plain(1.5)
        ('inf', None, 1.5)
    """
    if value is None or pd.isna(value):
        return None
    value = value.item() if hasattr(value, "item") else value
    if isinstance(value, float) and math.isinf(value):
        return "inf" if value > 0 else "-inf"
    return value


def differing(stated: Any, found: Any, place: str = "results") -> str | None:
    """The first place in which two values of an entry differ, with both; None where they agree.

    Numbers agree that are equal to nine digits.

    Example:
        >>> differing({"a": [1, 2.0]}, {"a": [1, 3.0]}, "x")
        'x/a/1 is 2.0 where 3.0 follows from the files'
        >>> differing({"a": 1}, {"a": 1 + 1e-12})
    """
    if isinstance(stated, Mapping) and isinstance(found, Mapping):
        for name in {**stated, **found}:
            if said := differing(stated.get(name), found.get(name), f"{place}/{name}"):
                return said
        return None
    if isinstance(stated, list) and isinstance(found, list):
        if len(stated) != len(found):
            return f"{place} has {len(stated)} items where {len(found)} follow from the files"
        said = (differing(a, b, f"{place}/{i}") for i, (a, b) in enumerate(zip(stated, found, strict=True)))
        return next(filter(None, said), None)
    numbers = [isinstance(each, int | float) and not isinstance(each, bool) for each in (stated, found)]
    if stated == found or (all(numbers) and math.isclose(stated, found, rel_tol=1e-9, abs_tol=1e-12)):
        return None
    return f"{place} is {stated!r} where {found!r} follows from the files"

"""What the informed attacker gets: at most, by the bound, and measured, in one sentence for each prior."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from dpbench.privacy import PRIOR_SUCCESS
from dpbench.privacy.rounding import down_percent, up_percent
from dpbench.report.naming import Naming
from dpbench.report.rows import only
from dpbench.system.once import once
from dpbench.system.words import counted, per_cent

_ALL_BUT = {
    "record": ("one sample", "is right about that one"),
    "user": ("one client", "is right about all the images of that one"),
}
SHOWN = 3
"""Settings named in a sentence; of more, the least and the most leaking."""


@once
def sentence(lines: pd.DataFrame, naming: Naming) -> str:
    """Say how often an attacker who knows all samples but one can be right about that one; may be empty.

    A bound holds for one prior, the share of cases in which the attacker is right without the release. What
    was measured among n candidates stands beside the bound at prior 1/n; settings that were not measured
    have a sentence of their own, with the bound at prior 1/10.

    Args:
        lines: of `dpbench.report.summary.summary`, floors left out.
        naming: of the same table.
    """
    private = only(lines, lines["rero_release"].notna() & (lines["images"] > 0))
    if private.empty:
        return ""
    several = private["batch_size"].nunique() > 1
    said: dict[tuple[float, str, bool], dict[str, tuple[float, float, str]]] = {}
    measured: set[tuple[str, float]] = set()
    for row in private.sort_values("success", na_position="last", kind="stable").to_dict("records"):
        defence = f"under {naming.defence(row)}" + (f" (batch of {row['batch_size']})" if several else "")
        if not pd.isna(row["success"]) and not pd.isna(row["success_bound"]):
            prior, bound = 1 / row["candidates"], row["success_bound"]
            where = ", ".join([defence, *told_apart(row, naming)])
            share, text = row["success"], f"{up_percent(bound)} {where} ({_measured(row)})"
            measured.add((defence, row["releases"]))
        elif (defence, row["releases"]) not in measured and pd.isna(row["success"]):
            prior, bound, where = PRIOR_SUCCESS, row["rero_release"], defence
            share, text = 0.0, f"{up_percent(bound)} {where}"
        else:
            continue
        unit = "user" if row.get("unit") == "user" else "record"
        sampled = row["inclusion"] < 1  # nobody knows for which releases the sample was drawn
        of = said.setdefault((prior, unit, sampled), {})
        found = bound, share, text
        of[where] = max(of.get(where, found), found)  # several releases have one name here
    return "\n".join(_one(*of, settings) for of, settings in sorted(said.items(), reverse=True))


def told_apart(row: Mapping[str, Any], naming: Naming) -> list[str]:
    """What tells an informed attacker's row from others under the same defence and batch size, in words.

    Args:
        row: of the summary.
        naming: of the whole table.
    """
    unaware = not pd.isna(row["adaptive"]) and not row["adaptive"]
    return [
        *naming.attack_settings(row),
        *(["not adaptive"] if unaware else []),
        *naming.heading(row, leave_out=("threat_model",)),
    ]


def _one(prior: float, unit: str, sampled: bool, settings: dict[str, tuple[float, float, str]]) -> str:
    ordered = [text for *_, text in sorted(settings.values())]
    if len(ordered) > SHOWN:
        ordered = [ordered[0], f"and so on up to {ordered[-1]}"]
    which, right = _ALL_BUT[unit]
    which += ", but not which releases hold it," if sampled else ""
    return (
        f"An informed attacker, who knows all but {which} and without the release {right} in "
        f"{down_percent(prior)} of cases, is right in at most {', '.join(ordered)}."
    )


def _measured(row: dict[str, Any]) -> str:
    return (
        f"measured among {row['candidates']} candidates: {per_cent(row['success'])} % of "
        f"{counted(row['trials'], 'trial', '.0f')}, 95 % interval {per_cent(row['success_low'])} to "
        f"{per_cent(row['success_high'])} %"
    )

"""What the informed attacker gets: at most, by the bound, and measured, in one sentence."""

from __future__ import annotations

import pandas as pd

from dpbench.privacy import PRIOR_SUCCESS
from dpbench.report.labels import defense_label

SHOWN = 3
"""Settings named in the sentence; of more, the least and the most leaking."""


def sentence(lines: pd.DataFrame) -> str:
    """Say how often an attacker who knows all samples but one can be right about that one; may be empty.

    Args:
        lines: of `dpbench.report.summary.summary`, floors left out.
    """
    private = lines[lines["rero_release"].notna() & (lines["images"] > 0)]
    if private.empty:
        return ""
    several = private["batch_size"].nunique() > 1
    said: dict[str, tuple[float, str]] = {}
    # measured rows last, so that they replace the same setting's bare bound
    for row in private.sort_values("success", na_position="first", kind="stable").to_dict("records"):
        where = f"under {defense_label(row)}" + (f" (batch of {row['batch_size']})" if several else "")
        text = f"{_percent(row['rero_release'])} {where}"
        if not pd.isna(row["success"]):
            text += (
                f" (measured, {row['candidates']} candidates: {100 * row['success']:.0f} %, 95 % interval "
                f"{100 * row['success_low']:.0f} to {100 * row['success_high']:.0f} %)"
            )
        said[where] = (row["rero_release"], text)
    ordered = [text for _, text in sorted(said.values())]
    if len(ordered) > SHOWN:
        ordered = [ordered[0], f"and so on up to {ordered[-1]}"]
    return (
        "An informed attacker, who knows all but one sample and without the release is right about that one "
        f"in {_percent(PRIOR_SUCCESS)} of cases, is right in at most {', '.join(ordered)}."
    )


def _percent(share: float) -> str:
    """Bounds are rounded upwards; 1 is reached by no noise, but by rounding."""
    return f"{min(100, -int(-share * 1000 // 1) / 10):g} %"

"""Do the epsilons and bounds of an entry follow from its noise?"""

from __future__ import annotations

from typing import Any

import pandas as pd

from dpbench import privacy
from dpbench.privacy.rounding import up
from dpbench.protocol import Factorisation

ROOM = 0.01
"""Share by which another version of an accountant may be tighter."""
_STATED = ("defense", "eps", "eps_release", "rero_release")
_DECIDE = ("delta", "noise_multiplier", "sample_rate", "steps", "releases", "inclusion", "bands")


def too_small(table: pd.DataFrame) -> list[str]:
    """One sentence, without a full stop, for each epsilon or bound that is below that of its noise.

    Whoever writes an entry can write any epsilon into it. A plug-in's noise is its author's own affair.

    Args:
        table: results, with the columns of `dpbench.store`.

    Raises:
        InputError: where a noise or a sampling is none.
    """
    private = table[table["eps_release"].notna() & table["noise_multiplier"].notna()]
    if "noise_unchecked" in private:
        private = private[private["noise_unchecked"].isna()]
    names = [name for name in (*_STATED, *_DECIDE) if name in private]
    rows = private[names].drop_duplicates().to_dict("records")
    return list(dict.fromkeys(said for row in rows for said in _of_row(row)))


def _of_row(row: dict[str, Any]) -> list[str]:
    sigma, delta = float(row["noise_multiplier"]), float(row["delta"])
    found = []
    if not pd.isna(row["eps"]):
        spent = privacy.epsilon(sigma, delta, float(row["sample_rate"]), int(row["steps"]))
        found.append(("ε of the training", row["eps"], spent))
    releases, inclusion, bands = (
        1 if pd.isna(row.get(name)) else row[name] for name in ("releases", "inclusion", "bands")
    )
    # without sampling all releases are one, whose noise may be correlated
    release = (sigma / Factorisation(int(releases), int(bands)).sensitivity(), 1.0, 1)
    if inclusion < 1:
        release = (sigma, float(inclusion), int(releases))
    found.append(
        ("ε of the attacked release", row["eps_release"], privacy.epsilon(release[0], delta, *release[1:]))
    )
    if not pd.isna(row["rero_release"]):
        found.append(("bound on reconstruction", row["rero_release"], privacy.reconstruction_bound(*release)))
    return [
        f"the {what} under {row['defense']}, {float(stated):.4g}, is too small: noise of σ {sigma:.4g} gives "
        f"{up(least, 4)}"
        for what, stated, least in found
        if float(stated) < least * (1 - ROOM)
    ]

"""Do the epsilons and bounds of an entry follow from its noise?"""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from dpbench import privacy
from dpbench.privacy.rounding import up
from dpbench.protocol import Factorisation

ROOM = 0.01
"""Share by which another version of an accountant may be tighter."""
_STATED = ("defense", "eps", "eps_release", "eps_replace", "eps_client", "rero_release", "success_bound")
_DECIDE = ("delta", "noise_multiplier", "sample_rate", "steps", "releases", "inclusion", "bands", "clients")
_DECIDE += ("candidates",)


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
    releases, inclusion, bands, clients = (
        1 if pd.isna(row.get(name)) else row[name] for name in ("releases", "inclusion", "bands", "clients")
    )
    # without sampling all releases are one, whose noise may be correlated
    release = (sigma / Factorisation(int(releases), int(bands)).sensitivity(), 1.0, 1)
    if inclusion < 1:
        release = (sigma, float(inclusion), int(releases))

    def epsilon(share: float) -> float:
        return privacy.epsilon(share * release[0], delta, *release[1:])

    def of_training() -> float:
        return privacy.epsilon(sigma, delta, float(row["sample_rate"]), int(row["steps"]))

    found = {
        "eps": ("ε of the training", of_training),
        "eps_release": ("ε of the attacked release", lambda: epsilon(1)),
        "eps_replace": ("ε of the attacked release under replacement", lambda: epsilon(1 / 2)),
        "eps_client": ("ε of one client's message", lambda: epsilon(1 / math.sqrt(clients))),
        "rero_release": ("bound on reconstruction", lambda: privacy.reconstruction_bound(*release)),
        "success_bound": (
            "bound on picking the sample",
            lambda: privacy.reconstruction_bound(*release, kappa=1 / row["candidates"]),
        ),
    }
    stated = {name: float(row[name]) for name in found if not pd.isna(row.get(name))}
    return [
        f"the {what} under {row['defense']}, {stated[name]:.4g}, is too small: noise of σ {sigma:.4g} gives "
        f"{up(least, 4)}"
        for name, (what, least_of) in found.items()
        if name in stated and stated[name] < (least := least_of()) * (1 - ROOM)
    ]

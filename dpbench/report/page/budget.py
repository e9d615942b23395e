"""The budgets of a run, and what follows from each for any attacker: what the card says first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import pandas as pd

from dpbench.privacy import PRIOR_SUCCESS, reconstruction_bound
from dpbench.privacy.rounding import up
from dpbench.privacy.tradeoff import trade_off
from dpbench.report.naming import Naming, settings

SHOWN = 8
"""Budgets on one page, at most; accounting takes up to seconds for each."""
_ONE = ["eps", "eps_release", "noise_multiplier", "delta", "sample_rate", "steps", "releases", "unit"]


@dataclass(frozen=True)
class Budget:
    """One budget.

    Attributes:
        defence: its name and epsilon.
        accounting: how it was computed, in words; empty where that is not known.
        row: its row of the summary.
        bound: largest share of cases in which an attacker rebuilds an image from all gradients of the
            training, if it does so in 10 % of them without and does not know which batches hold it; None
            where the budget is of the release alone.
        server: the same for one that knows the batches, as a curious server may; None likewise.
        advantage: membership over the whole training, true less false positive rate, at most; None likewise.
    """

    defence: str
    accounting: str
    row: Mapping[str, Any]
    bound: float | None
    server: float | None
    advantage: float | None


def budgets(attacked: pd.DataFrame, naming: Naming) -> tuple[list[Budget], int]:
    """Each budget once, the smallest epsilon first, and how many are left out because there are too many.

    Args:
        attacked: summary of the results, floors left out.
        naming: of the results.
    """
    private = attacked[attacked["eps_release"].notna() & attacked["noise_multiplier"].notna()]
    private = private.drop_duplicates(_ONE).sort_values(["eps", "eps_release"], kind="stable")
    shown = private.head(SHOWN).to_dict("records")
    return [_budget(row, naming) for row in shown], len(private) - len(shown)


def _budget(row: Mapping[str, Any], naming: Naming) -> Budget:
    bound = server = advantage = None
    if not any(pd.isna(row[name]) for name in ("eps", "sample_rate", "steps")):
        bound, server, advantage = _training(row["noise_multiplier"], row["sample_rate"], int(row["steps"]))
    known = not pd.isna(row["accountant"])
    accounting = settings(row, ["accountant"])[0].removeprefix("by ") if known else ""
    eps = row["eps_release"] if pd.isna(row["eps"]) else row["eps"]
    defence = f"{naming.defence(row, eps=False, leave_out=('accountant',))}, ε = {up(eps)}"
    return Budget(defence, accounting, row, bound, server, advantage)


@cache
def _training(sigma: float, rate: float, steps: int) -> tuple[float, float, float]:
    curve = trade_off(sigma, rate, steps)
    server = reconstruction_bound(sigma, rate, steps, batches_known=True)
    return curve.power(PRIOR_SUCCESS), server, curve.advantage

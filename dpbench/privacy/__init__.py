"""Noise for a budget, budgets for noise, and what no attacker can do under either.

Names load on first use (PEP 562): the computations need SciPy, the declaration of a budget does not.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from dpbench.privacy.aggregation import Aggregation
from dpbench.privacy.budget import Budget

_HOMES = {
    **dict.fromkeys(
        ("PRIOR_SUCCESS", "gaussian_claim", "membership_bound", "reconstruction_bound"),
        "dpbench.privacy.bounds",
    ),
    **dict.fromkeys(
        ("calibrate", "delta_note", "eps_replace", "epsilon", "noise_multiplier"),
        "dpbench.privacy.calibration",
    ),
    **dict.fromkeys(("TradeOff", "trade_off"), "dpbench.privacy.tradeoff"),
    **dict.fromkeys(("local_dp_epsilon", "sparse_vector_epsilon"), "dpbench.privacy.filters"),
    "grouped": "dpbench.privacy.group",
    "noise_left": "dpbench.privacy.aggregation",
    "nearest_gaussian": "dpbench.privacy.gaussian_dp",
    **dict.fromkeys(
        ("noise_for_advantage", "noise_for_bound", "noise_for_server_bound"), "dpbench.privacy.targets"
    ),
}
__all__ = [
    "PRIOR_SUCCESS",
    "Aggregation",
    "Budget",
    "TradeOff",
    "calibrate",
    "delta_note",
    "eps_replace",
    "epsilon",
    "gaussian_claim",
    "grouped",
    "local_dp_epsilon",
    "membership_bound",
    "nearest_gaussian",
    "noise_for_advantage",
    "noise_for_bound",
    "noise_for_server_bound",
    "noise_left",
    "noise_multiplier",
    "reconstruction_bound",
    "sparse_vector_epsilon",
    "trade_off",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    if name == "intervals":
        return import_module("dpbench.privacy.intervals")
    raise AttributeError(f"module 'dpbench.privacy' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)

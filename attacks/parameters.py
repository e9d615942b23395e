"""Parameters that mean the same in every attack: one declaration each, so that their help texts agree."""

from __future__ import annotations

from typing import Any

from dpbench.protocol import parameter


def iterations(default: int | None) -> Any:
    """Length of a search."""
    return parameter(
        default, "iterations per restart", column="max_iterations", at_least=1, at_most=100_000_000
    )


def restarts(default: int | None) -> Any:
    """Number of searches."""
    return parameter(default, "random starts of the search", at_least=1, at_most=100_000)


def learning_rate(default: float) -> Any:
    """Step size of a search by Adam."""
    return parameter(
        default, "largest step of Adam, in standard deviations of a channel or of a latent vector", above=0
    )


def adaptive() -> Any:
    """Whether an attack takes the defence into account, where it can (`Attack.adapts`)."""
    return parameter(True, "use what is publicly known of the defence", only_if={"adapts": True})


def tv(default: float) -> Any:
    """Weight of `regularisers.TotalVariation`."""
    return parameter(default, "weight of total variation", at_least=0)


def l2(default: float) -> Any:
    """Weight of `regularisers.L2`."""
    return parameter(default, "weight of the mean squared pixel", at_least=0)


def bn(default: float) -> Any:
    """Weight of `regularisers.BatchNormStatistics`."""
    return parameter(default, "weight of the batch-norm statistics", at_least=0)


def label_rule(default: str) -> Any:
    """Which of `labels.RULES` infers the labels."""
    return parameter(
        default,
        "how labels are inferred: minimum and sum for distinct ones, counts for any, auto by the batch size",
        symbol="labels by",
        only_if={"labels": "inferred"},
    )

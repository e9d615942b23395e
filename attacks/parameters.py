"""Parameters that mean the same in every attack: one declaration each, so that their help texts agree."""

from __future__ import annotations

from typing import Any, Literal

from dpbench.protocol import parameter

PresetName = Literal["tuned", "paper"]
"""The presets that an attack has."""


def iterations(default: int | None) -> Any:
    """Length of a search."""
    return parameter(
        default, "iterations per restart", column="max_iterations", at_least=1, at_most=100_000_000
    )


def restarts(default: int | None) -> Any:
    """Number of searches."""
    return parameter(default, "random starts of the search", at_least=1, at_most=100_000)


def preset() -> Any:
    """Which of an attack's presets gives the values that are not given, a `PresetName`."""
    return parameter("tuned", "weights and steps: ours, or the paper's")


def learning_rate(default: float | None) -> Any:
    """Step size of a search by Adam."""
    return parameter(
        default,
        "largest step of Adam, in standard deviations of a channel or of a latent vector",
        above=0,
        tuning=(0.02, 1.0),
    )


def adaptive() -> Any:
    """Whether an attack takes the defence into account, where it can (`Attack.adapts`)."""
    return parameter(True, "use what is publicly known of the defence", only_if={"adapts": True})


Update = Literal["simulate", "surrogate", "single-gradient"]
"""The ways to match the update of several local steps, see `attacks.engine.local_steps`."""


def update() -> Any:
    """How to match the update of several local steps, an `Update`."""
    return parameter(
        "simulate",
        "FedAvg: the steps unrolled on the trial images, one gradient at weights on the way, or one at those "
        "sent out",
        only_if={"local": True},
    )


def tv(default: float | None) -> Any:
    """Weight of `regularisers.TotalVariation`."""
    return parameter(default, "weight of total variation", at_least=0, tuning=(1e-5, 0.1))


def prior_weight(default: float | None) -> Any:
    """Weight of `gaussian_prior.GaussianPrior`."""
    return parameter(
        default,
        "weight of the Gaussian image prior, times the one that the defence calls for",
        at_least=0,
        tuning=(0.03, 30.0),
    )


def l2(default: float) -> Any:
    """Weight of `regularisers.L2`."""
    return parameter(default, "weight of the mean squared pixel", at_least=0)


def bn(default: float) -> Any:
    """Weight of `regularisers.BatchNormStatistics`."""
    return parameter(default, "weight of the batch-norm statistics", at_least=0, tuning=(0.01, 10.0))


def label_rule(default: str) -> Any:
    """Which of `labels.RULES` infers the labels."""
    return parameter(
        default,
        "how labels are inferred: minimum and sum for distinct ones, counts for any, matched under noise, "
        "auto by batch size and noise, exactly where the last layer allows it",
        symbol="labels by",
        only_if={"labels": "inferred"},
    )


def public_images() -> Any:
    """How many images `linear_estimate` learns from."""
    return parameter(
        1200,
        "public images of each label that the linear estimate learns from, 2400 of all labels at most",
        at_least=2,
        below=100_001,
    )

"""The guarantee of releases whose noise is correlated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import defenses
from dpbench.privacy.budget import Budget
from dpbench.protocol import Guarantee, InputError


def guarantee(
    stage: defenses.Aggregator,
    budget: Budget,
    noise_multiplier: float | None,
    releases: int,
    inclusion: float,
    asked: Mapping[str, Any],
) -> Guarantee:
    """All releases are one Gaussian release of `stage.sensitivity`, in which the sample takes part each time.

    Raises:
        InputError: where the guarantee of a whole training run is asked for, or Poisson sampling.
    """
    if budget.eps_scope != "release":
        # in a training, what a sample moves depends on how many steps lie between those that it is in
        raise InputError(
            f"The epsilon of {stage.name} is that of the attacked releases, which the sample is in each time, "
            "and of no training: use `eps_scope` release, or dp for the epsilon of a training."
        )
    if inclusion < 1:
        raise InputError(
            f"{stage.name} has a guarantee for releases that the sample is in each time: use `inclusion` 1."
        )
    far = stage.sensitivity(releases)
    one = budget.guarantee(noise_multiplier=noise_multiplier and noise_multiplier / far, **asked)
    return replace(one, noise_multiplier=noise_multiplier or one.noise_multiplier * far, releases=releases)

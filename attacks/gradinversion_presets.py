"""The weights and steps of GradInversion: the paper's, and ours."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Preset:
    """Weights and steps.

    Attributes:
        relative: use terms without a scale of their own, so that their weights suit any network.
        matching: by default.
        gradient: weight of the gradient distance.
        limit: largest ratio of the gradient distance's pull at an image to the regularisers', where there are
            batch-norm statistics (see `Problem`); None: no limit.
        tv: of total variation.
        l2: of the pixels' norm.
        bn: of the batch-norm statistics.
        group: of the distance to the consensus.
        langevin: noise per step, in units of the step (a_n).
        iterations: by default.
        restarts: seeds in the group, by default.
        prior: weight of the Gaussian prior, in units of the one that the defence calls for; it takes the
            place of total variation and l2.
        anneal: how many times that weight the search begins with; it falls geometrically.
        softened: large entries of the gradients count for less, where `softened.pays` says so and there is a
            prior or batch-norm statistics beside them.
        held: the loss gradient of the outputs is that of the release, where the last layer tells it.
        learning_rate: highest step, in units of a channel's standard deviation.
        group_every: share of the iterations after which the consensus is computed again.
        frequencies: search cosine coefficients instead of pixels.
        start: standard deviation of the search's start, in the same units.
    """

    relative: bool
    matching: str
    gradient: float
    limit: float | None
    tv: float
    l2: float
    bn: float
    group: float
    langevin: float
    prior: float
    anneal: float
    softened: bool
    held: bool
    iterations: int
    restarts: int
    learning_rate: float
    group_every: float
    frequencies: bool
    start: float


PRESETS = {
    "paper": Preset(
        relative=False,
        matching="layer-l2",
        gradient=1e-3,
        limit=None,
        tv=1e-4,
        l2=1e-6,
        bn=0.1,
        group=0.01,
        langevin=0.2,
        prior=0.0,
        anneal=1.0,
        softened=False,
        held=False,
        iterations=20_000,
        restarts=8,
        learning_rate=0.1,
        group_every=0.005,
        frequencies=False,
        start=1.0,
    ),
    "tuned": Preset(
        relative=True,
        matching="cosine",
        gradient=1.0,
        limit=2.0,
        tv=0.05,
        l2=0.0,
        bn=0.5,
        group=0.1,
        langevin=0.0,
        prior=0.0,
        anneal=1.0,
        softened=True,
        held=True,
        iterations=1_500,
        restarts=4,
        learning_rate=0.2,
        group_every=0.05,
        frequencies=True,
        start=0.3,
    ),
}
"""`paper`: the paper's values, from a secondary source. `tuned`: see docs/gradinversion.md."""
WITH_PRIOR = replace(
    PRESETS["tuned"], prior=1.0, anneal=10.0, tv=0.0, bn=0.05, group=0.01, learning_rate=0.3, start=1.0
)
"""`tuned` where there are statistics of images of this size, beside those of the batch at batch norm."""
PUBLIC = replace(WITH_PRIOR, bn=0.0, limit=None)
"""The same where the attacker was told none of the batch's own: running ones are those of other images."""

"""The batch-norm term of an attack, where the attacker was given statistics."""

from __future__ import annotations

import warnings

from attacks.engine.watch import batch_norms
from attacks.regularisers import BatchNormStatistics
from dpbench.protocol import Knowledge


def statistics_term(
    knowledge: Knowledge, weight: float, relative: bool, attack: str
) -> list[BatchNormStatistics]:
    """The term as a list of one; an empty list where there are no statistics, or for a weight of 0.

    Warns where the model has batch-norm layers and a term of some weight has no statistics.

    Args:
        knowledge: the model and the statistics.
        weight: of the term.
        relative: see `BatchNormStatistics`.
        attack: its name, for the warning.
    """
    if not weight:
        return []
    if knowledge.statistics:
        return [BatchNormStatistics(weight, knowledge.statistics, relative)]
    if batch_norms(knowledge.model):
        warnings.warn(
            f"{attack} was given no statistics of the model's batch-norm layers and goes without its "
            "batch-norm term: choose `bn_stats` running, exact or recovered to use it.",
            stacklevel=2,
        )
    return []

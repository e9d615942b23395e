"""How many labels an attack got right, whichever image each belongs to."""

from __future__ import annotations

from collections import Counter

import torch
from torch import Tensor

from dpbench.metrics.base import Scored, metric
from dpbench.store.columns import Column


def labels_restored(found: Tensor, labels: Tensor) -> Tensor:
    """Whether each label is among those found, each found label counting once.

    Args:
        found: int64 [B], in any order.
        labels: int64 [B], the true ones.

    Returns:
        bool [B], aligned with `labels`.

    Example:
        >>> labels_restored(torch.tensor([3, 1, 1]), torch.tensor([1, 3, 3]))
        tensor([ True,  True, False])
    """
    left, right = Counter(found.tolist()), []
    for label in labels.tolist():
        right.append(left[label] > 0)
        left[label] -= 1
    return torch.tensor(right, device=labels.device)


@metric(
    "label_correct",
    columns=(
        Column(
            "label_correct",
            "boolean",
            "measured",
            "the attack's label for the image was right; label-restoration: it is among those restored",
        ),
    ),
    better="higher",
    needs_images=False,
)
def of_scored(scored: Scored) -> dict[str, Tensor]:
    """The column `label_correct`."""
    if scored.found_labels is None:
        return {}
    if not scored.rebuilds_images:  # no image says whose label it is
        return {"label_correct": labels_restored(scored.found_labels, scored.labels)}
    return {"label_correct": scored.found_labels[scored.order] == scored.labels}

"""How many labels an attack got right, whichever image each belongs to."""

from __future__ import annotations

from collections import Counter

import torch
from torch import Tensor


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

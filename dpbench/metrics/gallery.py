"""Which images a reconstruction has to tell its original from.

Each original has decoys of its own: drawn at random, so that without a leak the original is as likely as any
of them to look most like the attack's images; of its label where there are enough, so that knowing the label
does not help.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dpbench.system import digest

GALLERY = 200
"""Images in a gallery, the original among them, at most."""
FEWEST = 20
"""Images in a gallery of one label, at least: a blind guess is then right once in 20 times or less often."""


def draw_others(labels: Tensor, wanted: Tensor, taken: Sequence[int], seed: int) -> Tensor:
    """Which images of a data set to hold for the galleries of a batch.

    Of each label in `wanted`, `GALLERY - 1` at random. Where one has fewer than `FEWEST - 1`, so many of any
    label instead: for a gallery of any label, no label must be favoured.

    Args:
        labels: int64 [N], of the data set.
        wanted: int64 [B], of the batch.
        taken: places in the data set of what must not be drawn: the batch, and all that the attacker or the
            victim has seen.
        seed: decides the order in which images are drawn.

    Returns:
        int64 [G], places in the data set, ascending, none twice.

    Example:
        >>> draw_others(torch.tensor([0, 1, 0, 1]), wanted=torch.tensor([1]), taken=[3], seed=0)
        tensor([0, 1, 2])
    """
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    order = order[~torch.isin(order, torch.tensor(taken, dtype=torch.int64))]
    alike = [order[labels[order] == label][: GALLERY - 1] for label in wanted.unique().cpu()]
    if any(len(found) < FEWEST - 1 for found in alike):
        alike = [order[: GALLERY - 1]]
    return torch.cat(alike).sort().values


def decoys(originals: Tensor, labels: Tensor, others: Tensor, other_labels: Tensor) -> Tensor:
    """The decoys of each original among `others`.

    They are the first `GALLERY - 1` of the original's label in a random order, or where there are fewer than
    `FEWEST - 1` of these, the first of any label. The order is `torch.randperm`, seeded by the SHA-256 of the
    original's 8-bit pixels: the same for every attack and defence, another one for every image.

    Args:
        originals: [B, C, H, W] in [0, 1].
        labels: int64 [B].
        others: [G, C, H, W] in [0, 1]; copies of an original are never decoys.
        other_labels: int64 [G].

    Returns:
        bool [B, G].
    """
    usable = ~_copies(others, originals)
    chosen = torch.zeros(len(originals), len(others), dtype=torch.bool)
    for row, original, label in zip(chosen, originals, labels, strict=True):
        alike = usable & (other_labels == label).cpu()
        pool = alike if alike.sum() >= FEWEST - 1 else usable
        order = torch.randperm(len(others), generator=torch.Generator().manual_seed(_seed(original)))
        row[order[pool[order]][: GALLERY - 1]] = True
    return chosen.to(originals.device)


def _copies(others: Tensor, originals: Tensor) -> Tensor:
    """Whether each of `others` equals one of `originals`; bool [G], on the CPU."""
    found = torch.zeros(len(others), dtype=torch.bool)
    # few images share their first row of pixels, so few are compared in full
    first_rows, own = (x[:, :, 0] if x.ndim > 2 else x for x in (others, originals))
    for original, first_row in zip(originals, own, strict=True):
        for i in (first_rows == first_row).flatten(1).all(1).nonzero().flatten().tolist():
            found[i] |= torch.equal(others[i], original)
    return found


def _seed(image: Tensor) -> int:
    return int(digest.tensors({"image": (image * 255).round().byte()})[:8], 16)

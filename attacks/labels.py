"""Labels read off the gradient of the last, fully connected layer.

For cross-entropy, d loss / d bias_n = mean over samples of (p_n - [label = n]): negative where a label
occurs. The weight gradient's rows are the same, weighted with the features, which ReLU and sigmoid keep from
being negative.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dpbench.protocol import InputError, Knowledge, Release

RULES = ("auto", "minimum", "sum", "counts")


def head(release: Release, num_classes: int) -> tuple[Tensor, Tensor | None]:
    """Gradients of the last layer's weight [K, features] and bias [K] (None where it has none).

    Raises:
        InputError: where no weight matrix with K rows was released.
    """
    weights = [i for i, g in enumerate(release.gradients) if g.dim() == 2 and len(g) == num_classes]
    if not weights:
        raise InputError(
            f"No fully connected layer with {num_classes} outputs to read labels from; use known labels."
        )
    last = weights[-1]
    stem = release.names[last].removesuffix("weight")
    biases = [g for name, g in zip(release.names, release.gradients, strict=True) if name == f"{stem}bias"]
    return release.gradients[last], biases[0] if biases else None


def infer(release: Release, knowledge: Knowledge, rule: str = "auto") -> Tensor:
    """Labels int64 [B] by one of `RULES`.

    `auto` is analytic for one sample (iDLG, Zhao et al. 2020) and `counts` for more.

    Raises:
        InputError: for an unknown rule, no fully connected layer, or a rule for distinct labels (`minimum`,
            `sum`) asked for more labels than there are classes.
    """
    if rule not in RULES:
        raise InputError(f"Unknown label rule {rule!r}; choose one of {', '.join(RULES)}.")
    weight, bias = head(release, knowledge.num_classes)
    batch = release.batch_size
    if rule == "auto":
        return analytic(weight, bias) if batch == 1 else counts(release, knowledge)
    if rule == "counts":
        return counts(release, knowledge)
    if batch > knowledge.num_classes:
        raise InputError(
            f"The {rule} rule finds distinct labels only: {batch} images, {knowledge.num_classes} classes."
        )
    return minimum(weight, batch) if rule == "minimum" else by_sum(weight, batch)


def analytic(weight: Tensor, bias: Tensor | None) -> Tensor:
    """The one label of a single sample: the only negative entry (iDLG, eq. 4); int64 [1]."""
    return (weight.sum(1) if bias is None else bias).argmin()[None]


def minimum(weight: Tensor, batch: int) -> Tensor:
    """The `batch` classes whose weight rows reach lowest (GradInversion, eq. 8); distinct, surest first."""
    return weight.min(1).values.argsort()[:batch]


def by_sum(weight: Tensor, batch: int) -> Tensor:
    """The `batch` classes with the lowest row sums (iDLG's rule for batches; GradInversion, eq. 7)."""
    return weight.sum(1).argsort()[:batch]


def counts(release: Release, knowledge: Knowledge) -> Tensor:
    """Labels with repeats: the gradient of the bias is mean p_n - count_n / B, and p_n is estimated.

    The estimate of the mean softmax output comes from the victim on random images, drawn around the public
    mean. The B labels are given out one at a time to the class with the largest count left over.
    Where the layer has no bias, row sums over the mean feature sum stand in for it.
    """
    weight, bias = head(release, knowledge.num_classes)
    batch = release.batch_size
    generator = torch.Generator().manual_seed(0)  # a fixed public probe, not part of the attack's randomness
    noise = torch.randn(64, *knowledge.image_shape, generator=generator).to(weight)
    mean, std = (torch.tensor(v).to(weight)[:, None, None] for v in (knowledge.mean, knowledge.std))
    with torch.no_grad():
        logits = knowledge.model((mean + std * noise).clamp(0, 1))
    probabilities = logits.softmax(1).mean(0)
    if bias is None:
        rows = weight.sum(1)
        # Only the true labels' rows are negative, and their parts add up to about one.
        bias = rows / (-rows.clamp_max(0).sum()).clamp_min(torch.finfo(rows.dtype).tiny)
    left = batch * (probabilities - bias)
    labels = []
    for _ in range(batch):
        best = int(left.argmax())
        labels.append(best)
        left[best] -= 1
    return torch.tensor(labels, device=weight.device)

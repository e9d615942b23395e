"""Labels read off the gradient of the last, fully connected layer.

For cross-entropy, d loss / d bias_n is the mean over samples of (p_n - [label = n]), negative where a label
occurs. Row n of the weight gradient is the same mean weighted with the features, which are not negative after
ReLU or sigmoid.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from attacks.adaptation import scaled
from attacks.base import Tell
from attacks.matched_labels import matched, references
from attacks.output_layer import output_layer
from dpbench.protocol import InputError, Knowledge, Release

Rule = Literal["minimum", "sum", "counts", "matched", "auto"]
RULES: tuple[str, ...] = get_args(Rule)
STARTS = 200
"""Starts of the search for samples in the last layer's gradient, at most: about a sixth of a second for eight
images of the ConvNet, and seconds where features have no zeros."""


def head(release: Release, knowledge: Knowledge) -> tuple[Tensor, Tensor | None]:
    """Gradients of the last layer's weight [K, features] and bias [K] (None where it has none).

    Two classes may share a single logit z, which stands for the logits (0, z). Their rows are of equal size
    and opposite sign. A bias that is trained alone is the weight of one feature, which is 1.

    Raises:
        InputError: where neither was released.
    """
    named = dict(zip(release.names, release.gradients, strict=True))
    weight, bias = (named.get(name) for name in output_layer(release, knowledge))
    weight = bias[:, None] if weight is None else weight
    if len(weight) < knowledge.num_classes:
        return torch.cat([-weight, weight]), None if bias is None else torch.cat([-bias, bias])
    return weight, bias


def infer(release: Release, knowledge: Knowledge, rule: str = "auto", tell: Tell = lambda *_: None) -> Tensor:
    """Labels int64 [B] by one of `RULES`.

    Without noise, `auto` is analytic for one sample (iDLG, Zhao et al. 2020). Of more it takes those that the
    last layer's gradient tells exactly, each with its certificate, and `counts` for the rest. Under noise it
    is `matched`, or `sum` where the attacker knows nothing of images, as far as there are classes.

    Args:
        release: of one batch.
        knowledge: whose labels play no part.
        rule: one of `RULES`.
        tell: told how far the search for samples is: of eight it may take seconds, of 32 among 1,000 classes
            a minute.

    Raises:
        InputError: for an unknown rule, no gradient of a last layer, a rule for distinct labels (`minimum`,
            `sum`) asked for more labels than there are classes, or `matched` without any knowledge of images.
    """
    if rule not in RULES:
        raise InputError(f"`label_rule` must be one of {', '.join(RULES)}, not {rule!r}.")
    weight, bias = head(release, knowledge)
    batch = release.batch_size
    noisy = release.noise_on_sum() > 0
    shrunk = not noisy and scaled(release)
    if rule == "auto" and not noisy:
        if batch == 1:
            return analytic(weight, bias)
        return completed(_certain(release, knowledge, tell), counts(weight, bias, batch, shrunk))
    if rule in ("auto", "matched"):
        names, sent = output_layer(release, knowledge), set(map(id, release.gradients))
        single = not sent & {id(weight), id(bias)}  # two rows made of one
        if not single and (given := references(knowledge)) is not None:
            return matched(release, knowledge, names, given)
        if rule == "matched" and single:
            raise InputError(
                "`label_rule` matched needs a row of the last layer for each class, and two classes share "
                "one: use sum."
            )
        if rule == "matched":
            raise InputError(
                "`label_rule` matched learns from public images or their statistics, and there are none: use "
                "sum or counts."
            )
        rule = "sum" if batch <= knowledge.num_classes else "counts"
    if rule == "counts":
        return counts(weight, bias, batch, shrunk)
    if batch > knowledge.num_classes:
        raise InputError(
            f"`label_rule` {rule} finds distinct labels only, and there are {batch} images of "
            f"{knowledge.num_classes} classes: use counts."
        )
    return minimum(weight, batch) if rule == "minimum" else by_sum(weight, batch)


def given_or_inferred(
    release: Release, knowledge: Knowledge, rule: str = "auto", tell: Tell = lambda *_: None
) -> tuple[Tensor, str]:
    """Labels int64 [B] and whether they are `known` or `inferred`; arguments and InputError as `infer`'s."""
    if knowledge.labels is not None:
        return knowledge.labels, "known"
    return infer(release, knowledge, rule, tell), "inferred"


def completed(found: Tensor, guessed: Tensor) -> Tensor:
    """Labels [B] that begin with those `found`, and go on with those `guessed` [B] that these do not explain.

    Example:
        >>> completed(torch.tensor([3, 5]), torch.tensor([1, 3, 3, 4]))
        tensor([3, 5, 1, 3])
    """
    left = guessed.tolist()
    for label in found.tolist():
        left.remove(label if label in left else left[-1])
    return torch.cat([found, guessed.new_tensor(left)])


def _certain(release: Release, knowledge: Knowledge, tell: Tell) -> Tensor:
    """The labels of the samples that explain the last layer's gradient, int64 [at most B]."""
    from attacks.exact import last_layer  # here, as its package imports this module
    from attacks.exact.separation import CERTAIN

    samples, _ = last_layer.samples(release, knowledge, torch.Generator().manual_seed(0), STARTS, tell)
    if samples is None:
        return torch.zeros(0, dtype=torch.int64, device=release.gradients[0].device)
    return samples.labels[samples.residual < CERTAIN]


def analytic(weight: Tensor, bias: Tensor | None) -> Tensor:
    """The one label of a single sample: the only negative entry (iDLG, eq. 4); int64 [1].

    Without a bias, each row is a multiple of the features, whose sign is not known: the label's row points
    against all others. Where two rows do, features are taken to be positive, as after ReLU.
    """
    if bias is not None:
        return bias.argmin()[None]
    along = weight @ weight[weight.norm(dim=1).argmax()]
    for entries in (along, -along):
        if int((entries < 0).sum()) == 1 < int((entries > 0).sum()):
            return entries.argmin()[None]
    return weight.sum(1).argmin()[None]


def minimum(weight: Tensor, batch: int) -> Tensor:
    """The `batch` classes with the lowest row minima (GradInversion, eq. 8); distinct, surest first."""
    return weight.min(1).values.argsort()[:batch]


def by_sum(weight: Tensor, batch: int) -> Tensor:
    """The `batch` classes with the lowest row sums (iDLG's rule for batches; GradInversion, eq. 7)."""
    return weight.sum(1).argsort()[:batch]


def counts(weight: Tensor, bias: Tensor | None, batch: int, scaled: bool = False) -> Tensor:
    """Labels with repeats, int64 [B].

    After ReLU or sigmoid a row has a negative entry only where its label occurs, so those classes come first,
    lowest entry first. The remaining labels go one at a time to the class with the largest remainder of
    count_n = B (mean p_n - d loss / d bias_n). For the unknown mean softmax output p_n, 1 / K is used (better
    on early victims than the victim's outputs on noise). Without a bias, row sums take its place, scaled so
    that their negative part sums to 1.

    Args:
        weight: gradient of the last layer's weight, [K, features].
        bias: of its bias, [K]; None where it has none.
        batch: B.
        scaled: a clip made the gradients smaller, by factors that are not released. With softmax outputs of
            1 / K the negative part of the bias sums to the share of the classes that do not occur, so the
            bias is enlarged until it does.
    """
    classes = len(weight)
    if bias is None:
        rows = weight.sum(1)
        bias = rows / (-rows.clamp_max(0).sum()).clamp_min(torch.finfo(rows.dtype).tiny)
    lowest = weight.min(1).values
    labels = [int(n) for n in lowest.argsort() if lowest[n] < 0][:batch]
    if scaled:
        negative = float(-bias.clamp_max(0).sum())
        absent = 1 - len(labels) / classes
        bias = bias * max(1.0, absent / max(negative, torch.finfo(bias.dtype).tiny))
    left = batch * (1 / classes - bias)
    for n in labels:
        left[n] -= 1
    while len(labels) < batch:
        labels.append(int(left.argmax()))
        left[labels[-1]] -= 1
    return torch.tensor(labels, device=weight.device)

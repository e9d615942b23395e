"""The informed attacker's trials: it knows the batch but for one sample, and n candidates for that one.

The truth is each candidate in turn, so that a guess without the release is right once in n.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from attacks.prior_aware import flat, log_likelihood
from dpbench.protocol import Candidates, InputError, Loss, Release, combined


@dataclass(frozen=True)
class Tally:
    """What came of the trials.

    Attributes:
        trials: releases (or groups of releases) that were attacked.
        right: how often the attack picked the true candidate.
        member_right: right answers to "is it in the batch?", asked in each trial with the sample in and out,
            by the sign of the log-likelihood ratio; out of 2 * trials.
    """

    trials: int
    right: int
    member_right: int


def draw_candidates(
    model: nn.Module,
    loss: Loss,
    images: Tensor,
    labels: Tensor,
    others: tuple[Tensor, Tensor],
    count: int,
    max_grad_norm: float | None,
    seed: int,
) -> Candidates:
    """The first sample of the batch among `count - 1` others drawn by `seed`; the rest of the batch is known.

    Args:
        model: the victim.
        loss: mean-reduced.
        images: the batch, [B, C, H, W].
        labels: int64 [B].
        others: images and labels outside the batch.
        count: n, at least 2.
        max_grad_norm: C; None where the defence does not clip.
        seed: decides which others.

    Raises:
        InputError: where there are too few others.
    """
    check_count(count, len(others[0]))
    order = torch.randperm(len(others[0]), generator=torch.Generator().manual_seed(seed))[: count - 1]
    order = order.to(images.device)
    candidates = torch.cat([images[:1], others[0][order]])
    classes = torch.cat([labels[:1], others[1][order]])
    gradients = clipped_gradients(model, loss, candidates, classes, max_grad_norm)
    known = torch.zeros_like(gradients[0])
    if len(images) > 1:
        known = clipped_gradients(model, loss, images[1:], labels[1:], max_grad_norm).sum(0)
    return Candidates(candidates, classes, gradients, known)


def check_count(candidates: int, others: int) -> None:
    """InputError where `others` images are too few for so many candidates, or there is nothing to choose."""
    if not 2 <= candidates <= others + 1:
        raise InputError(
            f"{candidates} candidates cannot be drawn: give --candidates from 2 to {others + 1}, or more "
            "images than the batch and they need."
        )


def clipped_gradients(
    model: nn.Module, loss: Loss, images: Tensor, labels: Tensor, max_grad_norm: float | None
) -> Tensor:
    """Each sample's gradient over all trainable parameters, scaled to at most C; [B, P]."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    rows = []
    for i in range(len(images)):
        value = loss(model(images[i : i + 1]), labels[i : i + 1])
        row = flat(torch.autograd.grad(value, parameters, materialize_grads=True))
        rows.append(row if max_grad_norm is None else row * (max_grad_norm / row.norm()).clamp(max=1))
    return torch.stack(rows)


def subsampled(release: Release, gradient: Tensor, present: Tensor) -> Release:
    """The release(s) as if the sample had been in some of the batches only; the divisor stays the same.

    What `dp` and `noise` add does not depend on the batch, so taking the sample's clipped gradient out of
    their sum is the same as leaving the sample out before.

    Args:
        release: of batches that all hold the sample.
        gradient: its clipped gradient [P].
        present: bool [T], where it stays.
    """
    parts = gradient.split([g.numel() for g in release.gradients])
    singles = [
        each
        if there
        else tuple(g - part.view_as(g) / release.batch_size for g, part in zip(each, parts, strict=True))
        for each, there in zip(release.each, present.tolist(), strict=True)
    ]
    return combined([replace(release, gradients=single, repeats=()) for single in singles])


def tally(
    given: Candidates,
    releases: Callable[[int], Iterator[tuple[Release, Tensor]]],
    answer: Callable[[Release], Tensor],
    inclusion: float = 1.0,
) -> Tally:
    """Count right answers.

    Args:
        given: the candidates.
        releases: index of the true candidate -> its trials: releases, and which of them hold it, bool [T].
        answer: release -> image of the chosen candidate, [C, H, W].
        inclusion: chance of the candidate to be in each release.
    """
    trials = right = member_right = 0
    for truth, gradient in enumerate(given.gradients):
        for release, present in releases(truth):
            trials += 1
            right += bool(torch.equal(answer(release), given.images[truth]))
            sums = torch.stack([flat(each) for each in release.each]) * release.batch_size - given.known
            absent = sums - present.to(sums)[:, None] * gradient
            for seen, is_in in ((sums, True), (absent, False)):
                ratio = log_likelihood(seen, gradient[None], release.noise_on_sum(), inclusion)
                member_right += bool(ratio > 0) == is_in
    return Tally(trials, right, member_right)

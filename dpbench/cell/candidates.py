"""What the informed attacker knows beforehand: all samples but one, and candidates for that one."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

import defenses
from attacks.prior_aware import flat
from dpbench.protocol import Candidates, InputError, Loss


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
    choices = torch.cat([images[:1], others[0][order]])
    classes = torch.cat([labels[:1], others[1][order]])
    gradients = clipped_gradients(model, loss, choices, classes, max_grad_norm)
    known = torch.zeros_like(gradients[0])
    if len(images) > 1:
        known = clipped_gradients(model, loss, images[1:], labels[1:], max_grad_norm).sum(0)
    return Candidates(choices, classes, gradients, known)


def shuffled(given: Candidates, seed: int) -> Candidates:
    """The same in an order drawn by `seed`: an attacker who tells none apart is right once in n."""
    order = torch.randperm(len(given.images), generator=torch.Generator().manual_seed(seed))
    order = order.to(given.images.device)
    mixed = {name: getattr(given, name)[order] for name in ("images", "labels", "gradients")}
    return replace(given, **mixed)


def check_count(candidates: int, others: int) -> None:
    """InputError where `others` images are too few for so many candidates, or there is nothing to choose."""
    if not 2 <= candidates <= others + 1:
        raise InputError(
            f"{candidates} candidates cannot be drawn: give `candidates` from 2 to {others + 1}, or more "
            "images than the batch and they need."
        )


def clipped_gradients(
    model: nn.Module, loss: Loss, images: Tensor, labels: Tensor, max_grad_norm: float | None
) -> Tensor:
    """Each sample's gradient over all trainable parameters, scaled to at most C; [B, P]."""
    model = defenses.in_release_mode(model)
    parameters = [p for p in model.parameters() if p.requires_grad]
    rows = []
    for i in range(len(images)):
        value = loss(model(images[i : i + 1]), labels[i : i + 1])
        row = flat(torch.autograd.grad(value, parameters, materialize_grads=True))
        if max_grad_norm is not None:  # in double precision, as the defence takes its norms
            row = row * (max_grad_norm / row.double().norm()).clamp(max=1).to(row)
        rows.append(row)
    return torch.stack(rows)

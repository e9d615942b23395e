"""One attack's question: how well do these variables explain the release, and which way is better?"""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter

import torch
from torch import Tensor, nn

from attacks.engine.variables import Pixels
from attacks.engine.watch import watching
from attacks.objectives import Gradients, Objective
from attacks.priors import Prior
from dpbench.protocol import Knowledge


class Problem(nn.Module):
    """What is searched, what has to be matched and what is believed.

    A module, so that all its tensors (the victim's parameters, the release, masks, statistics, weights) can
    be handed to a compiled iteration as inputs.

    Args:
        knowledge: the victim, its loss, and the public channel statistics.
        target: the released gradients; never looked at without an `objective`.
        objective: their distance to a trial gradient. None matches nothing but the labels: the distance is
            then `label_weight` times the victim's loss, and no gradient is read (DeepInversion).
        priors: penalties on the normalised pixels.
        variables: how pixels follow from what is searched; normalised pixels themselves unless given.
        label_weight: weight of the victim's loss where there is no objective.
        limit: how much harder than the priors the distance may pull at an image, at least 1; None: no limit.
            In a deep network the distance's gradient can be many times the priors' near the originals, and
            little else is heard there. From 1 on a point where both pulls cancel stays one. For searches of
            images alone: autograd raises where a variable does not reach the priors.
    """

    def __init__(
        self,
        knowledge: Knowledge,
        target: Gradients,
        objective: Objective | None,
        priors: Sequence[Prior] = (),
        variables: nn.Module | None = None,
        label_weight: float = 1.0,
        limit: float | None = None,
    ) -> None:
        super().__init__()
        self.model, self.loss, self.objective = knowledge.model, knowledge.loss, objective
        self.variables = variables or Pixels(knowledge.mean, knowledge.std)
        self.priors = nn.ModuleList(priors)
        like = next(iter(knowledge.model.parameters()))
        for name, values in (("mean", knowledge.mean), ("std", knowledge.std)):
            value = torch.tensor(values, device=like.device, dtype=like.dtype)[:, None, None]
            self.register_buffer(name, value)
        self.register_buffer("label_weight", torch.tensor(label_weight, device=like.device, dtype=like.dtype))
        self.limit = limit
        self._trainable = tuple(name for name, p in self.model.named_parameters() if p.requires_grad)
        self._targets = len(target) if objective is not None else 0
        for i in range(self._targets):
            self.register_buffer(f"target{i}", target[i])
        self.to(like.device)

    def gradient(
        self, variables: Sequence[Tensor], labels: Tensor, factors: Tensor | None = None
    ) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        """Distance, distance plus priors (detached scalars), and the latter's gradient to `variables`.

        Args:
            variables: what is searched (the first ones are the `variables` module's), then whatever else
                `labels` was computed from; all require gradients.
            labels: int64 [B], or soft labels [B, K] that depend on `variables`.
            factors: [priors], what each prior's weight is multiplied by; ones unless given.
        """
        z = self.variables(variables)
        with watching(self.model, any(prior.watches for prior in self.priors)) as activations:
            loss = self.loss(self.model(z * self.std + self.mean), labels)
        outputs, pulls = [], []
        if self.objective is None:
            distance = self.label_weight * loss
            outputs, pulls = [distance], [None]
        else:
            target = [self.get_buffer(f"target{i}") for i in range(self._targets)]
            # attrgetter, as parameters are plain tensors where the iteration is traced
            parameters = [attrgetter(name)(self.model) for name in self._trainable]
            outputs = list(torch.autograd.grad(loss, parameters, create_graph=True))
            with torch.no_grad():
                distance, pulls = self.objective([g.detach() for g in outputs], target)
        distance = total = distance.detach()
        if len(self.priors):
            penalties = torch.stack([prior(z, activations) for prior in self.priors])
            penalty = penalties.sum() if factors is None else (factors * penalties).sum()
            total = distance + penalty.detach()
            if self.limit is not None:
                drawn = torch.autograd.grad(outputs, variables, grad_outputs=pulls, retain_graph=True)
                believed = torch.autograd.grad(penalty, variables)
                return distance, total, limited(drawn, believed, self.limit)
            # one backward pass for both, as they share the network's first half
            outputs, pulls = [*outputs, penalty], [*pulls, torch.ones_like(penalty)]
        return distance, total, torch.autograd.grad(outputs, variables, grad_outputs=pulls)


def limited(drawn: Sequence[Tensor], believed: Sequence[Tensor], limit: float) -> tuple[Tensor, ...]:
    """The sum of both, image by image; the norm of `drawn` is held to `limit` times that of `believed`.

    Args:
        drawn: gradients [B, ...] of the distance.
        believed: gradients of the priors, of the same shapes.
        limit: see `Problem`.

    Example:
        >>> limited([torch.tensor([[3.0, 4.0], [0.3, 0.4]])], [torch.tensor([[0.0, 1.0], [0.0, 1.0]])], 2)
        (tensor([[1.2000, 2.6000],
                [0.3000, 1.4000]]),)
    """
    found = []
    for strong, quiet in zip(drawn, believed, strict=True):
        has, may = (torch.linalg.vector_norm(g.flatten(1), dim=1) for g in (strong, quiet))
        share = (limit * may / has.clamp(min=torch.finfo(has.dtype).tiny)).clamp(max=1)
        found.append(strong * share.view(-1, *[1] * (strong.dim() - 1)) + quiet)
    return tuple(found)

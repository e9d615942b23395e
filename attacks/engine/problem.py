"""What an attack minimises: its value and its gradient at any point."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from operator import attrgetter
from weakref import WeakSet

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import CheckpointError

from attacks.engine.local_steps import Path, Weights, gradient
from attacks.engine.twice import functions_once_differentiable, operation_of, refusal, twice_differentiable
from attacks.engine.variables import Pixels
from attacks.engine.watch import watching
from attacks.objectives import Gradients, Objective, Target, norms
from attacks.regularisers import Regulariser
from dpbench.protocol import InputError, Knowledge, functional_call

_examined: WeakSet[Problem] = WeakSet()
"""Problems whose autograd Functions were watched once; no attribute, because those tell programs apart."""


class Problem(nn.Module):
    """What is searched, what it has to match, and the regularisers.

    A module, so that all its tensors (the victim's parameters, the release, masks, statistics, weights) can
    be inputs of a compiled iteration.

    Args:
        knowledge: the victim, its loss, and the public channel statistics.
        target: the released gradients; unused without an `objective`.
        objective: their distance to a trial gradient. None matches the labels only: the distance is then
            `label_weight` times the victim's loss, and no gradient is read (DeepInversion).
        regularisers: penalties on the normalised pixels.
        variables: how pixels follow from what is searched; normalised pixels themselves unless given.
        label_weight: weight of the victim's loss where there is no objective.
        limit: largest ratio of the distance's gradient norm to the regularisers', image by image; at least 1,
            or None for no limit. In a deep network the distance's gradient near the originals can be many
            times the regularisers' and drown them. A point where the two cancel is the same under any such
            limit. Only for searches of images and of what `path` adds: autograd raises where another variable
            does not reach the regularisers.
        path: from images to the mean gradient of several local steps, where the release is that of a client's
            update; None compares with the gradient at the weights that were sent out.
        weighted: whether each image's share in the gradient is searched, too: the last variable, [B], whose
            softmax the losses are summed with. Clipping scales each image's gradient by a factor that the
            release does not tell. Not together with `path`.
    """

    def __init__(
        self,
        knowledge: Knowledge,
        target: Gradients,
        objective: Objective | None,
        regularisers: Sequence[Regulariser] = (),
        variables: nn.Module | None = None,
        label_weight: float = 1.0,
        limit: float | None = None,
        path: Path | None = None,
        weighted: bool = False,
    ) -> None:
        super().__init__()
        self.model, self.loss, self.objective = knowledge.model, knowledge.loss, objective
        axes = len(knowledge.image_shape) - 1
        self.variables = variables or Pixels(knowledge.mean, knowledge.std, axes)
        self.regularisers = nn.ModuleList(regularisers)
        like = next(iter(knowledge.model.parameters()))
        for name, values in (("mean", knowledge.mean), ("std", knowledge.std)):
            self.register_buffer(name, knowledge.per_channel(values, like))
        self.register_buffer("label_weight", torch.tensor(label_weight, device=like.device, dtype=like.dtype))
        self.limit, self.path, self.weighted = limit, path, weighted
        self._trainable = tuple(name for name, p in self.model.named_parameters() if p.requires_grad)
        self._targets = len(target) if objective is not None else 0
        for i in range(self._targets):
            self.register_buffer(f"target{i}", target[i])
        self.register_buffer("target_norms", norms(target) if self._targets else None)
        self.to(like.device)

    def gradient(
        self, variables: Sequence[Tensor], labels: Tensor, factors: Tensor | None = None
    ) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        """Distance, distance plus regularisers (detached scalars), and the gradient of their sum.

        Args:
            variables: what is searched: what the `variables` module takes, then whatever else `labels` was
                computed from, then what `path` searches; all require gradients.
            labels: int64 [B], or soft labels [B, K] that depend on `variables`.
            factors: [regularisers], what each one's weight is multiplied by; ones unless given.

        Raises:
            InputError: where the victim has an operation without a second derivative.
        """
        z = self.variables(variables)
        images = z * self.std + self.mean
        matched, new = self.objective is not None, self not in _examined
        watches = any(r.watches for r in self.regularisers)
        with (
            watching(self.model, watches) as activations,
            twice_differentiable() if matched else nullcontext(),
        ):
            # a path has losses of its own; what is watched are all images at the weights that were sent out
            needed = self.path is None or watches or new
            loss = self.loss_of(self.model(images), labels, variables) if needed else None
        silent = functions_once_differentiable([loss]) if matched and new else []
        try:
            if matched and new and loss is not None:
                _check_connected(loss, images)
            trial = self.trial(variables, images, labels, loss) if matched else []
            found = self._backward(variables, z, loss, trial, activations, factors)
        except CheckpointError as error:
            raise InputError(
                "The victim computes again what it did not keep (gradient checkpointing), and gets something "
                "else where it is differentiated twice: switch that off, as by "
                "model.set_grad_checkpointing(False)."
            ) from error
        except RuntimeError as error:
            if (operation := operation_of(error)) is None:
                raise
            raise refusal(self.model, images, operation) from error
        if silent:
            raise refusal(self.model, images, silent[0])
        _examined.add(self)
        return found

    def loss_of(self, outputs: Tensor, labels: Tensor, variables: Sequence[Tensor]) -> Tensor:
        """The victim's loss on a batch: its mean, or with the shares that are searched (`weighted`)."""
        if not self.weighted:
            return self.loss(outputs, labels)
        each = [self.loss(outputs[i : i + 1], labels[i : i + 1]) for i in range(len(outputs))]
        return torch.stack(each) @ torch.softmax(variables[-1], 0)

    def trial(
        self, variables: Sequence[Tensor], images: Tensor, labels: Tensor, loss: Tensor | None = None
    ) -> list[Tensor]:
        """The gradient that is compared with the release, differentiable in `variables`.

        Args:
            variables: see `gradient`.
            images: [B, C, H, W], which follow from them.
            labels: see `gradient`.
            loss: of the victim on these images; not needed where there is a `path`.
        """
        # attrgetter, because parameters are plain tensors while the iteration is traced
        weights = {name: attrgetter(name)(self.model) for name in self._trainable}
        if self.path is None:
            return gradient(loss, weights)
        if self not in _examined and loss is not None:
            gradient(loss, weights)  # tells whether it can be differentiated once more

        def loss_at(weights: Weights, rows: slice) -> Tensor:
            with twice_differentiable():
                return self.loss(functional_call(self.model, dict(weights), (images[rows],)), labels[rows])

        return self.path(loss_at, weights, self._released(), variables)

    def _released(self) -> Target:
        return Target([self.get_buffer(f"target{i}") for i in range(self._targets)], self.target_norms)

    def _backward(
        self,
        variables: Sequence[Tensor],
        z: Tensor,
        loss: Tensor | None,
        trial: list[Tensor],
        activations: Sequence[Tensor],
        factors: Tensor | None,
    ) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        """The second backward pass of `gradient`."""
        if self.objective is None:
            distance = self.label_weight * loss
            outputs, cotangents = [distance], [None]
        else:
            with torch.no_grad():
                distance, cotangents = self.objective([g.detach() for g in trial], self._released())
            # a parameter that the loss does not use has the gradient zero wherever the search goes
            used = [i for i, g in enumerate(trial) if g.requires_grad]
            outputs, cotangents = [trial[i] for i in used], [cotangents[i] for i in used]
        distance = total = distance.detach()
        if len(self.regularisers):
            penalties = torch.stack([r(z, activations) for r in self.regularisers])
            penalty = penalties.sum() if factors is None else (factors * penalties).sum()
            total = distance + penalty.detach()
            if self.limit is not None:
                matching = torch.autograd.grad(outputs, variables, grad_outputs=cotangents, retain_graph=True)
                images = len(variables) - (0 if self.path is None else self.path.searched) - self.weighted
                against = torch.autograd.grad(penalty, variables[:images])
                return distance, total, (*limited(matching[:images], against, self.limit), *matching[images:])
            # one backward pass for both, because they share the network's first half
            outputs, cotangents = [*outputs, penalty], [*cotangents, torch.ones_like(penalty)]
        return distance, total, torch.autograd.grad(outputs, variables, grad_outputs=cotangents)


def _check_connected(loss: Tensor, images: Tensor) -> None:
    """InputError where autograd finds no way from the victim's loss back to the images."""
    (found,) = torch.autograd.grad(loss, images, retain_graph=True, allow_unused=True)
    if found is None:
        raise InputError(
            "The victim's loss has no gradient with respect to the images, so there is nothing to search by: "
            "take out NumPy, detach(), rounding or whatever else stops it, or choose label-restoration."
        )


def limited(matching: Sequence[Tensor], penalty: Sequence[Tensor], limit: float) -> tuple[Tensor, ...]:
    """The sum of both, image by image; the norm of `matching` is held to `limit` times that of `penalty`.

    Args:
        matching: gradients [B, ...] of the distance.
        penalty: gradients of the regularisers, of the same shapes.
        limit: see `Problem`.

    Example:
        >>> limited([torch.tensor([[3.0, 4.0], [0.3, 0.4]])], [torch.tensor([[0.0, 1.0], [0.0, 1.0]])], 2)
        (tensor([[1.2000, 2.6000],
                [0.3000, 1.4000]]),)
    """
    sums = []
    for m, p in zip(matching, penalty, strict=True):
        norm, reference = (torch.linalg.vector_norm(g.flatten(1), dim=1) for g in (m, p))
        factor = (limit * reference / norm.clamp(min=torch.finfo(norm.dtype).tiny)).clamp(max=1)
        sums.append(m * factor.view(-1, *[1] * (m.dim() - 1)) + p)
    return tuple(sums)

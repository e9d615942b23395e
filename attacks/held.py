"""The loss gradient of the outputs, read off the last layer and held while images are searched for.

What a loss sends back through a network begins with its gradient at the outputs: of cross-entropy, softmax
less the label. Of a trial's images it is wrong as long as the images are, and with it every layer's gradient.
But the last layer's gradient tells what it was (`exact.last_layer`). With that in place of its own, a trial's
gradient differs from the release by nothing but its images. And the last layer's gradient, a sum over the
samples, can be taken apart: into the features of each, whatever its share in the sum.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from attacks.adaptation import CLIPS
from attacks.base import Task
from attacks.exact import last_layer
from attacks.exact.separation import CERTAIN
from attacks.held_in_part import loss_gradient
from attacks.labels import STARTS
from attacks.objectives import Gradients, Objective
from attacks.output_layer import of_logits
from dpbench.protocol import InputError, Knowledge, Release, bottleneck_head

KEPT = CLIPS | {"soteria"}
"""Stages that leave a single sample's bias gradient as it was, but for its scale and for noise."""
ROUNDED = 1e-4
"""Singular values of the loss gradients below which features are rounding errors, relative to the largest."""
COARSE = 0.1
"""The same under TF32, which rounds the gradient that they are taken from to a thousandth."""
OUTER = 1e-3
"""Relative error of a single sample's weight gradient as an outer product of loss gradient and features."""
UNSEEN = 1e-3
"""What several samples that were not found may add to the bias gradient, relative to it."""
UNTOLD = "The last layer did not tell all loss gradients of the outputs, so the search went by its own loss."


class Held(nn.Module):
    """A loss whose gradient is known: the inner product of the outputs and `deltas`, whatever the labels.

    A module, so that a compiled iteration takes other deltas, too.

    Args:
        deltas: [B, K], the gradient of the mean loss at each sample's outputs.
        layer: the name of the last layer.

    Example:
        >>> outputs = torch.zeros(1, 2, requires_grad=True)
        >>> Held(torch.tensor([[0.5, -0.5]]), "fc")(outputs, torch.tensor([1])).backward()
        >>> outputs.grad
        tensor([[ 0.5000, -0.5000]])
    """

    def __init__(self, deltas: Tensor, layer: str) -> None:
        super().__init__()
        self.layer = layer
        self.register_buffer("deltas", deltas)

    def forward(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """A scalar, of outputs [B, K]."""
        return (outputs * self.deltas).sum()


class WithFeatures(Objective):
    """An objective that is also given the features that make the last layer's gradient, as one more tensor.

    That gradient is D^T H, a row of D for the loss gradient and one of H for the features of each sample. In
    the sum a sample with a small loss gradient counts for little; in H all count alike.

    Args:
        objective: what compares.
        place: of the last layer's weight among the tensors.
        deltas: D, [B, K].
    """

    def __init__(self, objective: Objective, place: int, deltas: Tensor) -> None:
        super().__init__()
        self.objective, self.place = objective, place
        self.squares, self.scale_free = objective.squares, objective.scale_free
        apart = torch.linalg.pinv(deltas.double().T, rtol=rounded(deltas.device))
        self.register_buffer("apart", apart.to(deltas))

    def forward(self, trial: Gradients, target: Gradients) -> tuple[Tensor, list[Tensor]]:
        """Value and cotangent of the objective, the features' being passed on to the weight's gradient."""
        value, (*cotangent, last) = self.objective(self._more(trial), self._more(target))
        cotangent[self.place] = cotangent[self.place] + self.apart.T @ last
        return value, cotangent

    def residuals(self, trial: Gradients, target: Gradients) -> list[Tensor]:
        """Those of the objective."""
        return self.objective.residuals(self._more(trial), self._more(target))

    def _more(self, gradients: Gradients) -> list[Tensor]:
        return [*gradients, self.apart @ gradients[self.place]]


def rounded(device: torch.device) -> float:
    """`ROUNDED`, or `COARSE` where matrices are multiplied in TF32."""
    return COARSE if device.type == "cuda" and torch.backends.cuda.matmul.allow_tf32 else ROUNDED


def held(task: Task, labels: Tensor, in_part: bool = False) -> Knowledge:
    """What the attacker knows, with `Held` in place of the loss where the last layer tells its gradient.

    Of one sample it is that layer's bias gradient, whatever the loss, unless a defence changed it. Several
    have to be told apart, in the gradient of one step, without noise or zeros of a defence.

    Args:
        task: what is asked.
        labels: int64 [B], known or inferred, in the order that the images are searched for in.
        in_part: of one sample, also read what a defence left of that layer's gradient (`held_in_part`).
    """
    release, knowledge = task.release, task.knowledge
    if isinstance(knowledge.loss, Held) or _steps(release) > 1 or bottleneck_head(knowledge.model):
        return knowledge
    if release.batch_size == 1:
        found = _alone(release, knowledge)
        if found is None and in_part and not _kept(release):
            told = loss_gradient(release, knowledge)
            found = None if told is None else Held(told[0][None], told[1])
        return knowledge if found is None else replace(knowledge, loss=found)
    told = replace(knowledge, labels=labels)
    samples, _ = last_layer.samples(release, told, torch.Generator().manual_seed(0), STARTS, task.tell)
    return knowledge if samples is None else with_samples(knowledge, release, samples, labels)


def untold(release: Release, knowledge: Knowledge) -> str:
    """`UNTOLD` where the loss is not `Held` though the release is such that it may be; empty elsewhere."""
    may_be = _steps(release) == 1 and _kept(release) and not bottleneck_head(knowledge.model)
    return UNTOLD if may_be and not isinstance(knowledge.loss, Held) else ""


def compared(objective: Objective, release: Release, knowledge: Knowledge) -> Objective:
    """`WithFeatures`, where the loss is `Held`."""
    if not isinstance(knowledge.loss, Held):
        return objective
    return WithFeatures(
        objective, release.names.index(f"{knowledge.loss.layer}.weight"), knowledge.loss.deltas
    )


def with_samples(
    knowledge: Knowledge, release: Release, samples: last_layer.Samples, labels: Tensor
) -> Knowledge:
    """As `held`, of several samples that were read before."""
    bias = dict(zip(release.names, release.gradients, strict=True))[f"{samples.layer}.bias"]
    found = None if bottleneck_head(knowledge.model) else deltas(samples, bias.double(), labels)
    return knowledge if found is None else replace(knowledge, loss=Held(found.to(bias), samples.layer))


def deltas(samples: last_layer.Samples, bias: Tensor, labels: Tensor) -> Tensor | None:
    """The gradient of the mean loss at each sample's outputs; None where not all of them are told.

    Of one sample that is missing it is what the others leave of the bias gradient. Several may be missing
    where they leave next to nothing, as samples do that the victim is sure of.

    Args:
        samples: of which those count that are certain.
        bias: the bias gradient [K], float64.
        labels: int64 [B]; a certain sample of a label that is not among them says that the labels are wrong.

    Returns:
        float64 [B, K], in the order of `labels`.
    """
    certain = samples.residual < CERTAIN
    places, free = [], labels.tolist()
    for label in samples.labels[certain].tolist():
        if label not in free:
            return None
        places.append(free.index(label))
        free[places[-1]] = None  # of equal labels each takes one place
    left, missing = bias - samples.deltas[certain].sum(0), len(labels) - len(places)
    if missing > 1 and float(left.norm()) > UNSEEN * float(bias.norm()):
        return None
    found = (left / max(1, missing)).repeat(len(labels), 1)
    found[places] = samples.deltas[certain]
    return found


def _steps(release: Release) -> int:
    return 1 if release.local is None else release.local.steps(release.batch_size)


def _kept(release: Release) -> bool:
    """Whether no noise was added, and nothing done that changes a single sample's bias gradient."""
    return not release.noise_on_sum() and KEPT.issuperset(stage.name for stage in release.defense)


def _alone(release: Release, knowledge: Knowledge) -> Held | None:
    """Of one sample; None where its bias gradient was not sent as it was, or the weight's is no multiple.

    Where outputs are scaled behind the layer it is right but for a factor, which no `scale_free` objective
    sees.
    """
    if not _kept(release):
        return None
    try:
        weight, bias = last_layer.last_layer(release, knowledge)
    except InputError:
        return None
    sent = dict(zip(release.names, release.gradients, strict=True))
    delta, along = sent[bias], sent[bias] @ sent[weight] / sent[bias].square().sum()
    fits = (sent[weight] - torch.outer(delta, along)).norm() <= OUTER * sent[weight].norm()
    if not bool(fits) or bias not in of_logits(knowledge, [bias]):  # False for NaN
        return None
    return Held(delta[None], weight.removesuffix(".weight"))

"""Deep Leakage from Gradients (Zhu et al., NeurIPS 2019): L-BFGS on images and soft labels together.

Its line search reads values on the host, so it always runs eagerly.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from attacks import parameters as shared
from attacks.adaptation import adapt
from attacks.base import Attack, Task, attack, to_images
from attacks.engine.local_steps import path_of, with_path
from attacks.engine.problem import Problem
from attacks.objectives import SquaredL2
from dpbench.protocol import InputError, Knowledge, Reconstruction


@attack("dlg")
class DLG(Attack):
    """Squared gradient distance; labels are searched along with the images; the closest restart is kept.

    Attributes:
        iterations: counts gradient evaluations, line searches included.
        restarts: the search ends early once one of them explains the release.
        adaptive: as `adaptation.adapt`.
    """

    label_source: ClassVar[str] = "joint"
    exact = True  # it stops at a distance that is below TF32's rounding
    pictures_only = False
    matches = SquaredL2
    local_steps = True

    iterations: int = shared.iterations(3000)
    restarts: int = shared.restarts(2)
    adaptive: bool = shared.adaptive()
    update: shared.Update = shared.update()

    def variables(self, task: Task) -> tuple[list[Tensor], Callable[[Sequence[Tensor]], Tensor]]:
        """The start (normalised pixels first), and the function from a point to its labels."""
        batch, knowledge = task.release.batch_size, task.knowledge
        pixels, logits = task.noise(batch, *knowledge.image_shape), task.noise(batch, knowledge.num_classes)
        return [pixels, logits], lambda inputs: inputs[1].softmax(1)

    def run(self, task: Task) -> Reconstruction:
        """See `Attack.__call__`.

        Raises:
            InputError: where labels are searched and the victim's loss takes no class probabilities.
        """
        release, knowledge = task.release, task.knowledge
        objective = adapt(SquaredL2(), release) if self.adaptive else SquaredL2()
        path = path_of(release, self.update)
        problem = Problem(knowledge, release.gradients, objective, path=path)
        if self.label_source == "joint":
            check_loss(knowledge, problem.mean.expand(release.batch_size, *knowledge.image_shape))
        solved = SOLVED * sum(float(g.square().sum()) for g in release.gradients)
        best, spent, history, steps = None, 0, [], []
        for r in range(self.restarts):
            guess, to_labels = self.variables(task)
            done = r * self.iterations
            value, point, evaluations = lbfgs(
                lambda inputs, to_labels=to_labels: problem.gradient(inputs, to_labels(inputs))[1:],
                with_path(guess, path),
                self.iterations,
                solved,
                lambda i, v, done=done: task.progress(done + i, self.iterations * self.restarts, v),
            )
            spent += evaluations
            if best is None or value < best[0]:
                best = (value, point, guess[0], to_labels)
            history.append(best[0])
            steps.append(spent)
            if best[0] <= solved:
                break
        value, point, start, to_labels = best
        labels = to_labels(point)
        return Reconstruction(
            images=to_images(point[0], knowledge),
            labels=labels.argmax(1) if labels.dim() == 2 else labels,
            label_source=self.label_source
            if knowledge.labels is None or self.label_source == "joint"
            else "known",
            gradient_distance=value,
            start=to_images(start, knowledge),
            iterations=spent,
            seconds=task.seconds(),
            engine="eager",
            history=tuple(history),
            history_steps=tuple(steps),
        )


def check_loss(knowledge: Knowledge, images: Tensor) -> None:
    """InputError for a loss that takes labels only, or makes something else of class probabilities.

    Searched labels are probabilities, so the loss has to be differentiable in them, and those of a certain
    class have to cost what its label costs. Each class is tried on the victim's outputs.

    Args:
        knowledge: the victim and its loss.
        images: any that the victim takes, [B, C, H, W].
    """
    with torch.no_grad():
        outputs = knowledge.model(images)
    fits = all(_takes_probabilities(knowledge, outputs, label) for label in range(knowledge.num_classes))
    if not fits:
        raise InputError(
            "dlg searches labels as class probabilities, and the victim's loss takes labels only or weighs "
            "them differently: use a loss that is the same for a label and its one-hot probabilities, or "
            "choose idlg or inverting-gradients."
        )


def _takes_probabilities(knowledge: Knowledge, outputs: Tensor, label: int) -> bool:
    labels = torch.full((len(outputs),), label, device=outputs.device)
    expected = knowledge.loss(outputs, labels)  # an error here is no matter of probabilities
    certain = F.one_hot(labels, knowledge.num_classes).to(outputs.dtype).requires_grad_()
    try:
        with torch.enable_grad():
            found = knowledge.loss(outputs, certain)
        (gradient,) = torch.autograd.grad(found, certain)
    except Exception:  # losses fail at float labels in many ways
        return False
    return bool(gradient.isfinite().all()) and torch.allclose(found, expected, rtol=1e-3, atol=1e-6)


SOLVED = 1e-7
"""A release counts as explained once the squared distance is this share of its squared norm."""


def lbfgs(
    gradient: Callable[[Sequence[Tensor]], tuple[Tensor, tuple[Tensor, ...]]],
    start: Sequence[Tensor],
    evaluations: int,
    solved: float,
    progress: Callable[[int, float], None],
) -> tuple[float, list[Tensor], int]:
    """PyTorch's L-BFGS; after a NaN it restarts from the best point with an empty history.

    Args:
        gradient: variables -> (value, gradient of each variable).
        start: the first variables.
        evaluations: most calls of `gradient`.
        solved: a value at or below it ends the search.
        progress: told (evaluations done, best value).

    Returns:
        The lowest value seen, the variables there, and the calls spent.
    """
    variables = [v.clone().requires_grad_() for v in start]
    best_value, best_point, calls = float("inf"), [v.clone() for v in start], 0

    class BudgetError(Exception):
        """Raised inside the closure to end the line search."""

    def closure() -> Tensor:
        nonlocal best_value, best_point, calls
        if calls >= evaluations or best_value <= solved:
            raise BudgetError
        calls += 1
        value, gradients = gradient(variables)
        for v, g in zip(variables, gradients, strict=True):
            v.grad = g.contiguous()  # L-BFGS takes a view of it
        number = float(value)
        if number < best_value:
            best_value, best_point = number, [v.detach().clone() for v in variables]
        if calls % 10 == 0:
            progress(calls, best_value)
        if not (torch.isfinite(value) and all(torch.isfinite(g).all() for g in gradients)):
            raise FloatingPointError
        return value

    while calls < evaluations and best_value > solved:
        optimizer = torch.optim.LBFGS(
            variables,
            lr=1.0,
            max_iter=evaluations,
            history_size=100,
            line_search_fn="strong_wolfe",
            tolerance_grad=0.0,
            tolerance_change=0.0,
        )
        before = calls
        try:
            optimizer.step(closure)
        except BudgetError:
            break
        except FloatingPointError:
            pass
        if calls - before <= 2:  # no step possible from here, even without history
            break
        with torch.no_grad():
            for v, b in zip(variables, best_point, strict=True):
                v.copy_(b)
    return best_value, best_point, calls

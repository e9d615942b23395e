"""iDLG (Zhao et al. 2020): the label is read off the gradient first, then L-BFGS searches the image alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from attacks import labels as label_rules
from attacks.base import Task, attack
from attacks.dlg import DLG


@attack("idlg")
class IDLG(DLG):
    """DLG with hard labels, inferred (analytic for one image, by counts for more) unless they are known."""

    label_source = "inferred"

    def variables(self, task: Task) -> tuple[list[Tensor], Callable[[Sequence[Tensor]], Tensor]]:
        """Pixels only; the labels do not change during the search."""
        labels, _ = label_rules.given_or_inferred(task.release, task.knowledge, tell=task.tell)
        pixels = task.noise(task.release.batch_size, *task.knowledge.image_shape)
        return [pixels], lambda _: labels

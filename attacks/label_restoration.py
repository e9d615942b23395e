"""Labels alone, by a rule of one's choice: no image is searched."""

from __future__ import annotations

import torch

from attacks import labels as label_rules
from attacks.base import Attack, Task, attack
from dpbench.protocol import InputError, Reconstruction


@attack("label-restoration")
class LabelRestoration(Attack):
    """Restores the labels and hands back the public mean colour as images: a column `label_correct`.

    Args:
        label_rule: one of `labels.RULES`.
    """

    noise_floor = False

    def __init__(self, *, label_rule: str = "minimum") -> None:
        if label_rule not in label_rules.RULES:
            raise InputError(
                f"Unknown label rule {label_rule!r}; choose one of {', '.join(label_rules.RULES)}."
            )
        self.label_rule = label_rule

    def run(self, task: Task) -> Reconstruction:
        """See `Attack.__call__`."""
        labels, source = label_rules.given_or_inferred(task.release, task.knowledge, self.label_rule)
        mean = torch.tensor(task.knowledge.mean, device=task.device)[:, None, None]
        images = mean.expand(task.release.batch_size, *task.knowledge.image_shape).contiguous()
        return Reconstruction(
            images=images,
            labels=labels,
            label_source=source,
            gradient_distance=float("nan"),
            start=images,
            iterations=0,
            seconds=task.seconds(),
            engine="none",
        )

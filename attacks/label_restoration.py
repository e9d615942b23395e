"""Labels alone, by a rule of one's choice; no image is rebuilt."""

from __future__ import annotations

import torch

from attacks import labels as label_rules
from attacks import parameters as shared
from attacks.base import Attack, Task, attack
from dpbench.protocol import Reconstruction


@attack("label-restoration")
class LabelRestoration(Attack):
    """Restores the labels; its images are all of the public mean colour."""

    rebuilds_images = False
    noise_floor = False
    pictures_only = False
    local_steps = True

    label_rule: label_rules.Rule = shared.label_rule("auto")

    def run(self, task: Task) -> Reconstruction:
        """See `Attack.__call__`."""
        labels, source = label_rules.given_or_inferred(task.release, task.knowledge, self.label_rule)
        like = torch.empty((), device=task.device)
        mean = task.knowledge.per_channel(task.knowledge.mean, like)
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

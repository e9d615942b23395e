"""iDLG (Zhao et al. 2020): the label is read off the gradient first, then L-BFGS searches the image alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from attacks import labels as label_rules
from attacks.base import attack
from attacks.dlg import DLG
from dpbench.protocol import Knowledge, Release


@attack("idlg")
class IDLG(DLG):
    """DLG with hard labels: analytic for one image, by counts for more; known ones are used where given."""

    label_source = "inferred"

    def variables(
        self, release: Release, knowledge: Knowledge, generator: torch.Generator
    ) -> tuple[list[Tensor], Callable[[Sequence[Tensor]], Tensor]]:
        """Pixels only; the labels do not change during the search."""
        labels = label_rules.infer(release, knowledge) if knowledge.labels is None else knowledge.labels
        pixels = torch.randn(release.batch_size, *knowledge.image_shape, generator=generator)
        return [pixels], lambda _: labels

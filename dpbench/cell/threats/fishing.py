"""The malicious server that fishes: it changes the last layer so that one class alone moves the rest."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from dpbench.cell.scene import Scene, with_statistics
from dpbench.cell.threat_model import threat_model
from dpbench.cell.threats.honest import Honest
from dpbench.cell.views import View, part_of
from dpbench.cell.visibility import changed, public_of
from dpbench.protocol import InputError, Knowledge, Release, parameter
from dpbench.victim import fishing
from dpbench.victim.head import head


@threat_model("fishing")
class Fishing(Honest):
    """A server that changed the last layer before it sent the model out (Wen et al. 2022).

    What it then has of the class that it fishes for is the release of those images alone, which any attack of
    an honest server takes. All other images are guessed.
    """

    title = "fishing server, image identified"

    target: int | None = parameter(
        None,
        "class that the server fishes for; that of the first image unless given",
        symbol="fished class",
        at_least=0,
        below=10**6,
    )
    margin: float = parameter(
        10.0,
        "how far the other classes' logits exceed the fished one's on public images",
        unit="nat",
        above=0,
        at_most=1000,
    )

    @classmethod
    def suits(cls, attack: type) -> bool:
        """Every attack of an honest server."""
        return "honest" in attack.threat_models

    def prepare(self, scene: Scene) -> Scene:
        """The victim with another last layer; statistics are made from `others` where need be.

        Raises:
            InputError: for a victim without such a layer, for a class that nobody has, where there are too
                few other images, and where the client takes several local steps.
        """
        if self.local_epochs is not None:
            raise InputError(
                "`threat_model` fishing reads a gradient: leave out `local_epochs`, or use honest."
            )
        public, _ = public_of(scene, self.name)
        target = self._target(scene.labels)
        if target not in scene.labels.tolist():
            raise InputError(
                f"No image of the batch has the class {target} that is fished for: choose another `target`."
            )
        model = fishing.fished(scene.victim.model, scene.num_classes, target, public, self.margin)
        return changed(with_statistics(scene), model)

    def views(self, release: Release, knowledge: Knowledge) -> list[View]:
        """The release of the fished images alone.

        The last layer's rows of other classes hold all images. The row of the fished class holds its own
        alone, and the others are what they would be if there were no other images. Of a layer that the client
        keeps frozen, nothing is sent.

        Raises:
            InputError: where labels are not known and the bias that tells how many there are is frozen.
        """
        layer = knowledge.model.get_submodule(name := head(knowledge.model, knowledge.num_classes))
        target = int(layer.weight.abs().sum(1).argmax())  # the only row that is not zero
        scores = layer.bias.detach().clone()
        scores[target] = -torch.inf
        logit_gradient = scores.softmax(0)
        logit_gradient[target] = -1
        singles = [dict(zip(release.names, each, strict=True)) for each in release.each]
        for single in singles:
            for changed_in in single.keys() & {f"{name}.weight", f"{name}.bias"}:
                single[changed_in] = torch.tensordot(-logit_gradient, single[changed_in][target], 0)
        if knowledge.labels is None:
            if f"{name}.bias" not in release.names:
                raise InputError(
                    "How many images have the fished class is read off the gradient of "
                    f"{name}.bias, which is frozen: use `labels` known."
                )
            found = -release.batch_size * release.gradients[release.names.index(f"{name}.bias")][target]
            count = min(max(round(float(found)), 1), release.batch_size)
        else:
            count = int((knowledge.labels == target).sum())
        labels = torch.full((count,), target, device=release.gradients[0].device)
        note = "" if count == 1 else f"The {count} images of the fished class were not told apart."
        return [View(part_of(release, singles, count), replace(knowledge, labels=labels), note)]

    def _target(self, labels: Tensor) -> int:
        return int(labels[0]) if self.target is None else self.target

"""The malicious server that planted a layer in the model, which keeps the samples of a batch apart."""

from __future__ import annotations

import math

from torch import nn

from dpbench.cell import parts
from dpbench.cell.scene import Scene, with_statistics
from dpbench.cell.spec import Cell
from dpbench.cell.threat_model import threat_model
from dpbench.cell.threats.honest import Honest
from dpbench.cell.visibility import changed, public_of
from dpbench.privacy.expected_success import psnr_unbiased_probe
from dpbench.protocol import ImageStatistics, InputError, Release
from dpbench.victim import imprint


@threat_model("malicious-linear")
class MaliciousLinear(Honest):
    """A server that planted a layer before it sent the model out (Fowl et al. 2022)."""

    title = "malicious server, image identified"

    def prepare(self, scene: Scene) -> Scene:
        """The victim with the layer; statistics of public images are made from `others` where need be.

        Raises:
            InputError: for inputs that are not pictures, where there are too few other images, and where the
                client takes several local steps.
        """
        if self.local_epochs is not None:
            raise InputError(
                f"`threat_model` {self.name} reads a gradient: leave out `local_epochs`, or use honest."
            )
        if scene.images.ndim != 4:
            raise InputError(
                f"`threat_model` {self.name} plants a layer for pictures: it takes no inputs of shape "
                f"{tuple(scene.images.shape[1:])}."
            )
        public_of(scene, self.name)
        scene = with_statistics(scene)
        return changed(scene, self.planted(scene, scene.statistics))

    def planted(self, scene: Scene, statistics: ImageStatistics) -> nn.Module:
        """The model that the server sends.

        Args:
            scene: with the honest victim.
            statistics: of public images.
        """
        edges = imprint.edges_for(len(scene.images), statistics)
        return imprint.ImprintModel(scene.victim.model, edges, statistics)

    def extra(self, cell: Cell, scene: Scene, release: Release) -> list[dict[str, float | None]]:
        """PSNR of the unbiased estimate of each image from its row of the layer, where it has its own."""
        guarantee, network = release.guarantee, scene.victim
        by_record = parts.unit_of(cell) == "record" or scene.of_each_client == 1
        if guarantee is None or cell.defence.name != "dp" or not by_record:
            return [{} for _ in scene.images]
        noise = guarantee.noise_multiplier / math.sqrt(self.releases)
        norm, found = guarantee.max_grad_norm, []
        for seen in imprint.exposures(network.model, network.loss, scene.images, scene.labels):
            # a gradient shorter than C is not clipped, and one of norm C would not be either
            value = psnr_unbiased_probe(noise, max(seen[0], norm), seen[1]) if seen else None
            found.append({"psnr_unbiased_probe": value})
        return found

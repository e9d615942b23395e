"""The malicious server that tells clients apart in their sum: each gets kernels of its own."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from dpbench.cell.scene import Scene
from dpbench.cell.spec import Cell
from dpbench.cell.threat_model import threat_model
from dpbench.cell.threats.malicious_linear import MaliciousLinear
from dpbench.cell.views import View, part_of
from dpbench.protocol import ImageStatistics, Knowledge, Release
from dpbench.victim import imprint
from dpbench.victim.loki import ClientImprintModel


@threat_model("loki")
class Loki(MaliciousLinear):
    """A server that planted a layer and kernels for each client in front of it (Zhao et al. 2024)."""

    title = "server that tells clients apart, image identified"
    tells_clients = True

    @classmethod
    def suits(cls, attack: type) -> bool:
        """Every attack on a planted layer."""
        return MaliciousLinear.name in attack.threat_models

    def planted(self, scene: Scene, statistics: ImageStatistics) -> nn.Module:
        """See `MaliciousLinear.planted`."""
        edges = imprint.edges_for(scene.of_each_client, statistics)
        return ClientImprintModel(scene.victim.model, edges, statistics, scene.clients)

    def sent(self, model: nn.Module, client: int) -> nn.Module:
        """The model with this client's kernels."""
        return model.for_client(client)

    def views(self, release: Release, knowledge: Knowledge) -> list[View]:
        """Each client's own part of the sum: what it would have sent of a layer for it alone."""
        model, each = knowledge.model, release.batch_size // release.clients
        alone, parts = model.alone(), [[] for _ in range(release.clients)]
        for single in release.each:
            found = dict(zip(release.names, single, strict=True))
            victims = {name: found[name] for name in release.names if name.startswith("victim.")}
            for own, (weight, bias) in zip(parts, model.blocks(found["imprint.weight"]), strict=True):
                own.append({"imprint.weight": weight, "imprint.bias": bias} | victims)
        labels = [None] * release.clients if knowledge.labels is None else knowledge.labels.split(each)
        return [
            View(part_of(release, own, each), replace(knowledge, model=alone, labels=known))
            for own, known in zip(parts, labels, strict=True)
        ]

    def extra(self, cell: Cell, scene: Scene, release: Release) -> list[dict[str, float | None]]:
        """No more columns: the unbiased estimate of one client's images is that of a layer for it alone."""
        return [{} for _ in scene.images]

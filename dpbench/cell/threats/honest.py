"""The honest but curious server: it follows the protocol and looks at what it gets."""

from __future__ import annotations

from torch import Tensor

from dpbench.cell import release as releasing
from dpbench.cell.checks import of_release
from dpbench.cell.floors import OF_A_BATCH, Floor
from dpbench.cell.result import CellResult
from dpbench.cell.scene import Scene, with_statistics
from dpbench.cell.score import joined, scored, start_rows
from dpbench.cell.spec import Cell
from dpbench.cell.threat_model import Progress, ThreatModel, threat_model
from dpbench.metrics import floors
from dpbench.protocol import LocalTraining, Release, parameter


@threat_model("honest")
class Honest(ThreatModel):
    """A server that follows the protocol."""

    title = "honest server, image identified"

    local_epochs: int | None = parameter(
        None,
        "FedAvg: passes over its batch that the client trains before it sends the update of its weights; "
        "without it, it sends a gradient",
        symbol="E",
        at_least=1,
        below=10_001,
    )
    local_batch_size: int | None = parameter(
        None,
        "FedAvg: images in each local step, in the same order in every epoch; all of the batch unless given",
        symbol="local B",
        at_least=1,
        below=10**6,
        only_if={"local": True},
    )
    local_lr: float = parameter(
        0.01, "FedAvg: learning rate of the local steps", symbol="local lr", above=0, only_if={"local": True}
    )

    def local(self, images: int) -> LocalTraining | None:
        """See `ThreatModel.local`."""
        if self.local_epochs is None:
            return None
        size = min(images, self.local_batch_size or images)
        return LocalTraining(self.local_epochs, size, self.local_lr)

    def prepare(self, scene: Scene) -> Scene:
        """The scene; statistics of public images are made from `others` where need be and there are any."""
        return with_statistics(scene)

    def run(self, cell: Cell, scene: Scene, progress: Progress | None = None) -> CellResult:
        """See `ThreatModel.run`; an undefended cell brings the rows of its start along."""
        if cell.floor in OF_A_BATCH:
            return scored(cell, scene, _guess(cell.floor, scene))
        release = releasing.released(cell, scene)
        checked = {} if cell.floor else of_release(cell, scene, release)
        if cell.floor is Floor.NOISE_GRADIENT:
            release = floors.noise_release(release, cell.seed("noise floor", cell.attack.name))
        found = releasing.attacked(cell, scene, release, progress)
        common = checked | {"per_sample": release.per_sample or None}
        extra = [common | more for more in self.extra(cell, scene, release)]
        result = scored(cell, scene, found.images, found, release.guarantee, extra)
        if cell.floor or cell.defence.name != "none":
            return result
        return joined(result, start_rows(cell, scene, found))

    def extra(self, cell: Cell, scene: Scene, release: Release) -> list[dict[str, float | None]]:
        """More columns of each image's row; none here."""
        return [{} for _ in scene.images]


def _guess(floor: Floor, scene: Scene) -> Tensor:
    if floor is Floor.MEAN_IMAGE:
        return floors.mean_image(len(scene.images), scene.mean_image)
    return floors.constant_image(scene.images)

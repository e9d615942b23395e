"""What a threat model is: what the attacker may do, and what it learns beside the release."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from torch import nn

from dpbench.cell.result import CellResult
from dpbench.cell.scene import Scene
from dpbench.cell.spec import Cell
from dpbench.cell.views import View
from dpbench.protocol import Declared, Knowledge, LocalTraining, Registry, Release, parameter

Progress = Callable[[int, int, float], None]
"""(iterations done, iterations in all, objective value) -> None."""


@dataclass(frozen=True, kw_only=True)
class ThreatModel(Declared, ABC):
    """The attacker of a cell; a subclass declares what it takes and says how such a cell is run.

    Attributes:
        name: what it is registered under.
        title: what pictures call its success, as in `honest server, image identified`.
        rebuilds_images: its outcome are images, so that floors belong beside it.
        is_server: it is the server, which sees the clients' sum before any noise that it adds itself.
        tells_clients: it knows whose image is whose in the clients' sum, so only those of the first client
            are assigned to that client's originals.
    """

    name: ClassVar[str]
    title: ClassVar[str] = ""
    rebuilds_images: ClassVar[bool] = True
    is_server: ClassVar[bool] = True
    tells_clients: ClassVar[bool] = False

    releases: int = parameter(
        1,
        "noisy gradients of the same batch that the attacker gets",
        symbol="releases",
        at_least=1,
        below=1_000_001,
        only_if={"repeatable": True},
    )

    @classmethod
    def suits(cls, attack: Any) -> bool:
        """Whether the attack (a class) is one of this attacker's."""
        return cls.name in attack.threat_models

    def prepare(self, scene: Scene) -> Scene:
        """The scene after what the server did to it before the client came."""
        return scene

    def sent(self, model: nn.Module, client: int) -> nn.Module:
        """The model that a client gets, of the scene's; `client` counts from 0, the attacked one."""
        return model

    def views(self, release: Release, knowledge: Knowledge) -> list[View]:
        """What the server makes of the release: one view of all images, or several of some of them."""
        return [View(release, knowledge)]

    def local(self, images: int) -> LocalTraining | None:
        """How a client of so many images trains before it sends its update; None for one gradient."""
        return None

    @abstractmethod
    def run(self, cell: Cell, scene: Scene, progress: Progress | None = None) -> CellResult:
        """Defends, attacks and scores.

        Args:
            cell: what to run.
            scene: prepared, on the device.
            progress: told how far it is.

        Raises:
            InputError: for a defence or an attack that cannot work on this model or batch.
        """


threat_models: Registry[type[ThreatModel]] = Registry(
    "threat model", "dpbench.threat_models", base=ThreatModel
)
T = TypeVar("T", bound="type[ThreatModel]")


def threat_model(name: str) -> Callable[[T], T]:
    """Class decorator that registers a threat model under `name`."""
    return threat_models.register(name)

"""What every attack is: keyword-only hyper-parameters, called with a release and public knowledge."""

from __future__ import annotations

import inspect
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, TypeVar

import torch
from torch import Tensor

from dpbench.protocol import InputError, Knowledge, Reconstruction, Registry, Release

Progress = Callable[[int, int, float], None]
"""(iterations done, iterations in all, objective value) -> None; called every so many iterations.

With none done the search has not begun: a NaN value says that it is being compiled.
"""

attacks: Registry[type[Attack]] = Registry("attack", group="dpbench.attacks")
A = TypeVar("A", bound="type[Attack]")


def attack(name: str) -> Callable[[A], A]:
    """Class decorator that registers an attack under `name`."""

    def register(cls: A) -> A:
        attacks.add(name, cls)
        return cls

    return register


@dataclass(frozen=True)
class Task:
    """What an attack is asked to do.

    Attributes:
        release: what left the client.
        knowledge: what the attacker is told.
        generator: on the CPU; every random draw comes from it.
        device: where release and knowledge are and the search runs.
        progress: told how far it is.
        begun: the clock (`time.perf_counter`) that `seconds` count from.
    """

    release: Release
    knowledge: Knowledge
    generator: torch.Generator
    device: torch.device
    progress: Progress
    begun: float

    def noise(self, *shape: int) -> Tensor:
        """A standard normal draw, made on the CPU so that it does not depend on the device it is moved to."""
        return torch.randn(*shape, generator=self.generator).to(self.device)

    def seconds(self) -> float:
        """Since the attack began."""
        return time.perf_counter() - self.begun


class Attack(ABC):
    """A search for the images behind a release. Subclasses keep their hyper-parameters as attributes.

    Hyper-parameters with these names mean the same everywhere: `iterations`, `restarts`, `adaptive` (use what
    is known of the defence) and `engine`; an attack has those it can use.

    Attributes:
        threat_models: the attackers it is an attack of, the usual one first: `honest` (follows the protocol),
            `malicious-linear` (planted a layer that isolates samples), `informed` (knows all but one sample
            and candidates for that one).
        needs: fields of `Knowledge` that it cannot do without.
        noise_floor: whether its images from a noise gradient say what it makes up; not where it reads none.
    """

    threat_models: ClassVar[tuple[str, ...]] = ("honest",)
    needs: ClassVar[frozenset[str]] = frozenset()
    noise_floor: ClassVar[bool] = True

    def __call__(
        self,
        release: Release,
        knowledge: Knowledge,
        *,
        seed: int,
        device: torch.device | str = "cpu",
        progress: Progress | None = None,
    ) -> Reconstruction:
        """Rebuilds the batch.

        Args:
            release: the gradient that left the client.
            knowledge: what the attacker is told.
            seed: decides every random draw; the same seed gives the same images on the same device.
            device: where the search runs; release and knowledge must be there already.
            progress: called with (iterations done, iterations in all, objective value).

        Raises:
            InputError: for a release that does not fit the model or is not finite.
        """
        shapes = {name: p.shape for name, p in knowledge.model.named_parameters() if p.requires_grad}
        if shapes != dict(zip(release.names, (g.shape for g in release.gradients), strict=True)):
            raise InputError(
                "The release's gradients do not fit the model's parameters; attack the model they came from."
            )
        if not all(torch.isfinite(g).all() for g in release.gradients):
            raise InputError("The release holds NaN or infinite gradients; there is nothing to attack.")
        generator, begun = torch.Generator().manual_seed(seed), time.perf_counter()
        return self.run(
            Task(release, knowledge, generator, torch.device(device), progress or (lambda *_: None), begun)
        )

    @abstractmethod
    def run(self, task: Task) -> Reconstruction:
        """The attack itself."""

    def __repr__(self) -> str:
        known = inspect.signature(type(self)).parameters
        return f"{type(self).__name__}({', '.join(f'{k}={getattr(self, k)!r}' for k in sorted(known))})"


def positive(**values: float) -> None:
    """Refuses hyper-parameters below 1 with one sentence."""
    for name, value in values.items():
        if value < 1:
            raise InputError(f"{name} must be at least 1, not {value}.")


def to_images(z: Tensor, knowledge: Knowledge) -> Tensor:
    """Normalised pixels [B, C, H, W] as images in [0, 1]."""
    mean, std = channel_statistics(knowledge, z)
    return (z * std + mean).clamp(0, 1)


def channel_statistics(knowledge: Knowledge, like: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation [C, 1, 1] on the device and in the dtype of `like`."""
    return tuple(
        torch.tensor(values, device=like.device, dtype=like.dtype)[:, None, None]
        for values in (knowledge.mean, knowledge.std)
    )

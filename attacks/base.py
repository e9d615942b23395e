"""The base class of every attack: declared hyper-parameters, called with a release and public knowledge."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self, TypeVar, dataclass_transform

import torch
from torch import Tensor

from attacks.adaptation import adapts
from attacks.bottleneck import NAME, UNREAD, in_the_know
from attacks.objectives import Objective
from dpbench.protocol import (
    Declared,
    InputError,
    Knowledge,
    Reconstruction,
    Registry,
    Release,
    full_precision,
    parameter,
)

Progress = Callable[[int, int, float], None]
"""(iterations done, iterations in all, objective value) -> None; called every so many iterations.

With none done the search has not begun: a NaN value says that it is being compiled.
"""
Tell = Callable[[int, int], None]
"""(done, all) -> None; how far that is which comes before a search: labels read, samples told apart."""

A = TypeVar("A", bound="type[Attack]")
ROUNDING = 1e-4
"""How far pixels of an answer may lie outside [0, 1]."""


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(parameter, field))
def attack(name: str) -> Callable[[A], A]:
    """Class decorator: registers an attack under `name` and makes it a frozen keyword-only dataclass.

    Type checkers see the fields; they take a parameter for optional where `default` is given by keyword.
    """
    return attacks.register(name)


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
        guess: images [B, C, H, W] in [0, 1] that a search sets out from; None for noise.
        tell: told how far that is which comes before a search.
    """

    release: Release
    knowledge: Knowledge
    generator: torch.Generator
    device: torch.device
    progress: Progress
    begun: float
    guess: Tensor | None = None
    tell: Tell = lambda *_: None

    def noise(self, *shape: int) -> Tensor:
        """A standard normal draw, made on the CPU so that it does not depend on the device it is moved to."""
        return torch.randn(*shape, generator=self.generator).to(self.device)

    def seconds(self) -> float:
        """Since the attack began."""
        return time.perf_counter() - self.begun


class Attack(Declared, ABC):
    """A search for the images behind a release.

    A subclass declares its hyper-parameters with `parameter(...)`; `attacks.parameters` has the declarations
    of those that attacks share. One that uses `attacks.engine.search` has the plain field
    `engine: str = "auto"`, which is no hyper-parameter: engines differ by rounding only.

    Attributes:
        name: set by the registry.
        threat_models: of whom it is an attack, the usual one first: `honest` (follows the protocol),
            `malicious-linear` (planted a layer that isolates samples), `informed` (knows all but one sample
            and candidates for that one).
        needs: fields of `Knowledge` that it cannot do without.
        rebuilds_images: False where only the labels in its answer mean anything.
        noise_floor: False where the attack reads no gradient or rebuilds no image, so that its answer to
            pure noise is no floor of its own.
        local_steps: it takes the update of a client that made several local steps (`Release.local`).
        exact: it compares numbers so close that TF32 is turned off on a graphics card.
        pictures_only: it is refused inputs that are not pictures [C, H, W], such as volumes and tables.
        simulates: it learns from releases that it makes itself, so noise in the victim stays unknown to it.
        most_images: the largest batch that it takes; None for any.
        matches: the kind of `attacks.objectives` that it lets `adapt` change; None for an attack that answers
            defences in a way of its own, and then any, unless it overrides `adapts`.
    """

    name: ClassVar[str]
    threat_models: ClassVar[tuple[str, ...]] = ("honest",)
    needs: ClassVar[frozenset[str]] = frozenset()
    rebuilds_images: ClassVar[bool] = True
    noise_floor: ClassVar[bool] = True
    local_steps: ClassVar[bool] = False
    exact: ClassVar[bool] = False
    pictures_only: ClassVar[bool] = True
    simulates: ClassVar[bool] = False
    most_images: ClassVar[int | None] = None
    matches: ClassVar[type[Objective] | None] = None

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
            InputError: for a release that does not fit the model or is not finite, for inputs that the attack
                does not take, for the update of several local steps where it needs a gradient, and for a
                batch that is too large for it.
            TypeError: where `run` returns anything but a `Reconstruction` of tensors.
            ValueError: where its images are of another number or shape, or do not lie in [0, 1].
        """
        steps = 1 if release.local is None else release.local.steps(release.batch_size)
        if steps > 1 and not self.local_steps:
            raise InputError(
                f"{self.name} needs the gradient of one step, and this is the update of {steps} local steps: "
                "use inverting-gradients, gradinversion, latent-projection, dlg or idlg."
            )
        if self.most_images is not None and release.batch_size > self.most_images:
            raise InputError(
                f"{self.name} takes {self.most_images} image at a time and the batch has "
                f"{release.batch_size}: use `batch_size` {self.most_images}."
            )
        shapes = {name: p.shape for name, p in knowledge.model.named_parameters() if p.requires_grad}
        fits = len(release.names) == len(release.gradients)
        if not fits or shapes != {n: g.shape for n, g in zip(release.names, release.gradients, strict=True)}:
            raise InputError(
                "The release's gradients do not fit the model's parameters; attack the model they came from."
            )
        if not all(torch.isfinite(g).all() for g in release.gradients):
            raise InputError("The release holds NaN or infinite gradients; there is nothing to attack.")
        if self.pictures_only and not knowledge.pictures:
            raise InputError(
                f"{self.name} is for pictures (C, H, W), and the inputs are {knowledge.image_shape}: choose "
                "another attack, or set `pictures_only = False` in its class if it takes any shape."
            )
        device, progress = torch.device(device), progress or (lambda *_: None)
        generator, begun = torch.Generator().manual_seed(seed), time.perf_counter()
        adaptive = bool(self.values().get("adaptive", True))
        with full_precision(device) if self.exact else nullcontext():
            read = False
            if not self.simulates:
                release, knowledge, read = in_the_know(release, knowledge, generator, adaptive)
            whole = self.evaluations()
            tell = lambda done, of: progress(whole * done // of, whole, 1 - done / of)  # noqa: E731
            try:
                found = self.run(Task(release, knowledge, generator, device, progress, begun, tell=tell))
            except RuntimeError as error:
                if "not supported on ScriptModules" not in str(error):
                    raise
                raise InputError(
                    f"{self.name} looks into the model's layers, which TorchScript hides: give the module "
                    "that it was made of, or choose `dlg`, which looks into none."
                ) from error
        self._check(found, release, knowledge)
        if adaptive and not self.simulates and NAME in (stage.name for stage in release.defense):
            found = replace(found, note=f"{UNREAD} {found.note}".strip())
        # to the attack itself the labels that were read beforehand look like known ones
        return replace(found, label_source="inferred") if read and found.label_source == "known" else found

    def _check(self, found: Reconstruction, release: Release, knowledge: Knowledge) -> None:
        if not isinstance(found, Reconstruction):
            raise TypeError(f"`run` of {self.name} must return a Reconstruction, not {type(found).__name__}.")
        chooses = "candidates" in self.needs  # of images as they were given, the one that it does not know
        count = 1 if chooses else release.batch_size
        shape = (count, *knowledge.image_shape)
        for what, images in (("images", found.images), ("start", found.start)):
            said = f"`{what}` of {self.name} must"
            if not isinstance(images, Tensor):
                raise TypeError(f"{said} be a tensor, not {type(images).__name__}.")
            if images.shape != shape:
                raise ValueError(f"{said} be {shape}, not {tuple(images.shape)}.")
            if not images.is_floating_point() or images.layout != torch.strided or images.is_meta:
                raise TypeError(
                    f"{said} be a dense tensor of floats, not {images.dtype}, {images.layout} on "
                    f"{images.device}."
                )
            low, high = images.detach().aminmax()
            if not chooses and (low < -ROUNDING or high > 1 + ROUNDING):  # NaN is refused by the metrics
                raise ValueError(f"{said} lie in [0, 1], not in [{low:.3g}, {high:.3g}].")
        labels = found.labels
        if not isinstance(labels, Tensor):
            raise TypeError(f"`labels` of {self.name} must be a tensor, not {type(labels).__name__}.")
        if labels.dtype != torch.int64 or labels.shape != (count,):
            raise ValueError(
                f"`labels` of {self.name} must be int64 [{count}], not {labels.dtype} {list(labels.shape)}."
            )

    @abstractmethod
    def run(self, task: Task) -> Reconstruction:
        """The attack itself."""

    @classmethod
    def adapts(cls, stages: Sequence[str], given: Mapping[str, Any]) -> bool:
        """Whether it has an answer to a defence, so that `adaptive` plays a role.

        Args:
            stages: names of the defence's stages, in order; at least one.
            given: hyper-parameters, of which those at their defaults may be missing, and `several`: whether
                a release is of more than one image, each clipped by itself where there is a clip.
        """
        return cls.matches is None or adapts(stages, cls.matches)

    def resolved(self) -> Self:
        """The attack as it will run: every None that stands for another value is replaced by that value."""
        return self

    def wants(self) -> frozenset[str]:
        """Fields of `Knowledge` to look for: those it `needs`, and what it only does better with."""
        values = self.values()
        more = {"public_images"} if values.get("label_rule") == "matched" else set()
        denoises = values.get("prior") == "denoiser" or values.get("centre") == "denoised"
        return self.needs | more | ({"image_denoiser"} if denoises else set())

    def evaluations(self) -> int:
        """Objective evaluations of a complete search: `iterations` times `restarts`; 1 without a search."""
        values = self.resolved().values()
        return values.get("iterations", 1) * values.get("restarts", 1)


attacks: Registry[type[Attack]] = Registry("attack", group="dpbench.attacks", base=Attack, reserved=("all",))


def to_images(z: Tensor, knowledge: Knowledge) -> Tensor:
    """Normalised pixels [B, C, H, W] as images in [0, 1]."""
    mean, std = channel_statistics(knowledge, z)
    return (z * std + mean).clamp(0, 1)


def to_pixels(images: Tensor, knowledge: Knowledge) -> Tensor:
    """Images [B, C, H, W] in [0, 1] as normalised pixels."""
    mean, std = channel_statistics(knowledge, images)
    return (images - mean) / std


def channel_statistics(knowledge: Knowledge, like: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation [C, 1, ...] on the device and in the dtype of `like`."""
    return tuple(knowledge.per_channel(values, like) for values in (knowledge.mean, knowledge.std))

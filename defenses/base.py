"""What a defence is, how stages chain, and the registry they are found in."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import ClassVar, TypeVar

import torch
from torch import Tensor, nn

from defenses.checks import check_batch, check_finite, check_mean_loss, untouched
from dpbench.protocol import Guarantee, InputError, Loss, Registry, Release, Stage

Gradients = tuple[Tensor, ...]
"""One tensor per trainable parameter, in the order of `model.named_parameters()`."""


class Defense(ABC):
    """One stage; a keyword-only dataclass whose number and text fields are its public parameters."""

    name: ClassVar[str]

    def stage(self) -> Stage:
        """The public description: everything an attacker may know about this stage."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return Stage(self.name, {k: v for k, v in values.items() if isinstance(v, (int, float, str))})


class Aggregator(Defense):
    """A stage that sees each sample's gradient; only ever the first of a chain."""

    @property
    def guarantee(self) -> Guarantee | None:
        """The differential privacy of what `aggregate` returns; post-processing keeps it."""
        return None

    @abstractmethod
    def aggregate(
        self, model: nn.Module, loss: Loss, images: Tensor, labels: Tensor, generator: torch.Generator
    ) -> Gradients:
        """One gradient for the batch, divided by its size.

        Args:
            model: the victim; must be left untouched.
            loss: mean-reduced.
            images: float [B, C, H, W], as the model takes them.
            labels: int64 [B].
            generator: the source of randomness, on the model's device.

        Returns:
            Detached tensors of the trainable parameters' shapes.
        """

    def aggregates(
        self,
        model: nn.Module,
        loss: Loss,
        images: Tensor,
        labels: Tensor,
        generator: torch.Generator,
        count: int,
    ) -> list[Gradients]:
        """`count` times `aggregate` of the same batch; override it where there is a faster way."""
        return [self.aggregate(model, loss, images, labels, generator) for _ in range(count)]


class PostProcessor(Defense):
    """A stage that sees the batch's gradient only, so it cannot weaken a guarantee given before it."""

    @abstractmethod
    def process(self, gradients: Gradients, generator: torch.Generator) -> Gradients:
        """The gradients after this stage, as new tensors of the same shapes."""


defenses_registry: Registry[type[Defense]] = Registry("defense", "dpbench.defenses")
D = TypeVar("D", bound=type[Defense])


def defense(name: str) -> Callable[[D], D]:
    """Class decorator that registers a defence under `name`; a name taken already raises ValueError."""

    def register(cls: D) -> D:
        defenses_registry.add(name, cls)
        cls.name = name
        return cls

    return register


@dataclass(frozen=True)
class Chain:
    """Stages applied one after the other: at most one `Aggregator`, first, then `PostProcessor`s.

    Attributes:
        stages: in order of application; none means the plain gradient of the mean loss.

    Raises:
        InputError: for an aggregator anywhere but in first place.
    """

    stages: tuple[Defense, ...] = ()

    def __post_init__(self) -> None:
        for stage in self.stages[1:]:
            if isinstance(stage, Aggregator):
                raise InputError(
                    f"{stage.name} works on each sample's gradient, so it can only come first in a chain: "
                    f"not {'+'.join(s.name for s in self.stages)}."
                )

    @property
    def guarantee(self) -> Guarantee | None:
        """The guarantee of the first stage; the later ones are post-processing and leave it as it is."""
        first = self.stages[0] if self.stages else None
        return first.guarantee if isinstance(first, Aggregator) else None

    def release(self, model: nn.Module, loss: Loss, images: Tensor, labels: Tensor, *, seed: int) -> Release:
        """What the client sends for one batch; see `releases`."""
        return self.releases(model, loss, images, labels, seed=seed, count=1)[0]

    def releases(
        self, model: nn.Module, loss: Loss, images: Tensor, labels: Tensor, *, seed: int, count: int
    ) -> list[Release]:
        """What the client sends where it is asked `count` times for the gradient of the same batch.

        The guarantee is that of each single one.

        Args:
            model: the victim, left untouched (gradients, modes, statistics and hooks).
            loss: mean-reduced over the batch, which is checked.
            images: float [B, C, H, W] on the model's device.
            labels: int64 [B] (or soft labels [B, K]) on the model's device.
            seed: decides the noise; the same seed gives the same releases on the same device. The caller's
                random state is left as it was.
            count: how many, at least 1.

        Raises:
            InputError: for an empty batch, a loss that is not a mean, gradients that are not finite, or a
                model the first stage cannot treat.
        """
        check_batch(model, images, labels)
        device = images.device
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(seed)  # a model in training mode may draw numbers of its own
            generator = torch.Generator(device=device).manual_seed(seed)
            check_mean_loss(model, loss, images, labels)
            stages = list(self.stages)
            if stages and isinstance(stages[0], Aggregator):
                released = stages.pop(0).aggregates(model, loss, images, labels, generator, count)
            else:
                released = [mean_gradient(model, loss, images, labels) for _ in range(count)]
            for stage in stages:
                released = [stage.process(gradients, generator) for gradients in released]
        names = tuple(name for name, p in model.named_parameters() if p.requires_grad)
        public = tuple(stage.stage() for stage in self.stages)
        return [Release(names, gradients, len(images), public, self.guarantee) for gradients in released]


def mean_gradient(model: nn.Module, loss: Loss, images: Tensor, labels: Tensor) -> Gradients:
    """The undefended gradient of the mean loss; zero for a parameter the loss does not depend on."""
    copy = untouched(model)
    trainable = [p for p in copy.parameters() if p.requires_grad]
    with torch.enable_grad():
        value = loss(copy(images), labels)
    gradients = torch.autograd.grad(value, trainable, materialize_grads=True)
    check_finite(gradients)
    return gradients


def check_positive(what: str, value: float) -> None:
    """InputError unless `value` is a finite number above 0."""
    if not (value > 0 and math.isfinite(value)):
        raise InputError(f"{what} must be a finite number above 0, not {value:g}.")

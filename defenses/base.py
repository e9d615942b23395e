"""What a defence is, how stages chain, and the registry they are found in."""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

from defenses.checks import check_batch, check_loss
from defenses.copies import in_release_mode
from defenses.mean import Gradients, mean_gradient
from dpbench.protocol import (
    Claim,
    Declared,
    Guarantee,
    InputError,
    Loss,
    Registry,
    Release,
    Stage,
    full_precision,
)


class Aggregates(list[Gradients]):
    """Several gradients of one batch.

    Attributes:
        per_sample: what computed each sample's gradient (see `Release.per_sample`); empty where nobody says.
    """

    def __init__(self, gradients: Iterable[Gradients] = (), per_sample: str = "") -> None:
        super().__init__(gradients)
        self.per_sample = per_sample


class Defense(Declared, ABC):
    """One stage of a defence; its parameters are declared with `parameter(...)` and public.

    A class that has a plain field `guarantee` (a `Guarantee` or None) is one that dpbench calibrates: it is
    given the `noise_multiplier` of a budget and the guarantee that comes with it.

    Attributes:
        name: what it is registered under.
        repeatable: it draws noise, so that several releases of one batch differ and tell more than one.
        remembers: what it releases depends on its earlier releases; these differ, too, and are no
            independent draws.
    """

    name: ClassVar[str]
    repeatable: ClassVar[bool] = False
    remembers: ClassVar[bool] = False

    def stage(self) -> Stage:
        """The public description: everything an attacker may know about this stage."""
        return Stage(self.name, {name: value for name, value in self.values().items() if value is not None})

    def claim(self, entries: int) -> Claim | None:
        """The privacy that its makers say a release has, for the audit to check; None where they claim none.

        Args:
            entries: of the gradient, all tensors together.
        """
        return None


class Aggregator(Defense):
    """A stage that sees each sample's gradient; only ever the first of a chain."""

    @property
    def guarantee(self) -> Guarantee | None:
        """The differential privacy of what `aggregate` returns; post-processing keeps it."""
        return None

    def sensitivity(self, releases: int) -> float:
        """How far a sample in each of `releases` moves all of them together, in units of the clip norm.

        The root of their number where each has noise of its own.

        Raises:
            InputError: for several releases of a stage that remembers, which has to override this.
        """
        if self.remembers and releases > 1:
            raise InputError(
                f"{self.name} does not say how far a sample moves {releases} releases together: override "
                "`sensitivity`."
            )
        return math.sqrt(releases)

    @abstractmethod
    def aggregate(
        self, model: nn.Module, loss: Loss, images: Tensor, labels: Tensor, generator: torch.Generator
    ) -> Gradients:
        """One gradient for the batch, divided by its size.

        Args:
            model: a copy of the victim, in the mode its gradient is taken in; it may serve several releases.
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
        """`count` times `aggregate` of the same batch; override it where there is a faster way.

        Return `Aggregates` to say how each sample's gradient was computed.
        """
        return [self.aggregate(model, loss, images, labels, generator) for _ in range(count)]


class PostProcessor(Defense):
    """A stage that sees the batch's gradient only, so it cannot weaken a guarantee given before it."""

    @abstractmethod
    def process(self, gradients: Gradients, generator: torch.Generator) -> Gradients:
        """The gradients after this stage, as new tensors of the same shapes."""

    def stream(self, generator: torch.Generator) -> Callable[[Gradients], Gradients]:
        """What is called with one gradient after the other; override it where a release remembers others."""
        return lambda gradients: self.process(gradients, generator)

    def process_all(self, releases: Sequence[Gradients], generator: torch.Generator) -> list[Gradients]:
        """Several releases in the order they are made."""
        process = self.stream(generator)
        return [process(gradients) for gradients in releases]


NONE = "none"
"""The name of the chain without stages."""
defenses_registry: Registry[type[Defense]] = Registry("defense", "dpbench.defenses")
D = TypeVar("D", bound=type[Defense])


def defense(name: str) -> Callable[[D], D]:
    """Class decorator that registers a defence under `name` and makes it a frozen, keyword-only dataclass.

    Raises:
        ValueError: for a name that is taken.
        TypeError: for a parameter whose name means something else elsewhere in the program.
    """

    def register(cls: D) -> D:
        defenses_registry.add(name, cls)
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
        check_order([type(stage) for stage in self.stages])

    @property
    def name(self) -> str:
        """The names of the stages joined by `+`, as `defenses.create` takes them; `none` without any."""
        return "+".join(stage.name for stage in self.stages) or NONE

    @property
    def repeatable(self) -> bool:
        """Some stage draws noise or remembers, so that several releases of one batch differ."""
        return any(stage.repeatable or stage.remembers for stage in self.stages)

    def changed(self) -> dict[str, Any]:
        """The parameters of all stages that differ from their defaults.

        `defenses.create(chain.name, **chain.changed())` makes the chain again, without its guarantee.

        Raises:
            InputError: where two stages have different values of one parameter, which no name can say.
        """
        values = [stage.values() for stage in self.stages]
        for name in {name for each in values for name in each}:
            if len({each[name] for each in values if name in each}) > 1:
                raise InputError(
                    f"Two stages of {self.name} differ in `{name}`: give every stage the same value."
                )
        return {name: value for stage in self.stages for name, value in stage.changed().items()}

    @property
    def guarantee(self) -> Guarantee | None:
        """The guarantee of the first stage; the later ones are post-processing and leave it as it is."""
        first = self.stages[0] if self.stages else None
        return first.guarantee if isinstance(first, Aggregator) else None

    def claim(self, entries: int) -> Claim | None:
        """What is said of the last stage that something is said of; nobody vouches for it."""
        claims = (stage.claim(entries) for stage in reversed(self.stages))
        return next((claim for claim in claims if claim is not None), None)

    def release(self, model: nn.Module, loss: Loss, images: Tensor, labels: Tensor, *, seed: int) -> Release:
        """What the client sends for one batch; see `releases`."""
        return self.releases(model, loss, images, labels, seed=seed, count=1)[0]

    def releases(
        self,
        model: nn.Module,
        loss: Loss,
        images: Tensor,
        labels: Tensor,
        *,
        seed: int,
        count: int,
        expected_batch_size: int | None = None,
    ) -> list[Release]:
        """What the client sends where it is asked `count` times for the gradient of the same batch.

        The guarantee is that of each single one.

        Args:
            model: the victim, left untouched (gradients, modes, statistics and hooks). The gradient is taken
                with dropout off, whatever the mode and the defence; batch norm keeps its mode.
            loss: mean-reduced over the batch, which is checked.
            images: float [B, C, H, W] on the model's device.
            labels: int64 [B] (or soft labels [B, K]) on the model's device.
            seed: decides the noise; the same seed gives the same releases on the same device. The caller's
                random state is left as it was.
            count: how many, at least 1.
            expected_batch_size: what the sum is divided by; the size of the batch unless given. DP-SGD
                divides by a public number, whoever is in the batch.

        Raises:
            InputError: for an empty batch, a model whose output is random with dropout off, a loss that is
                not a mean, gradients that are not finite, or a model the first stage cannot treat.
        """
        check_batch(model, images, labels)
        device, copy = images.device, in_release_mode(model)
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), full_precision(device):
            # for a third party's stage that does not use the generator: a stream apart from the noise's
            torch.manual_seed(_seed_of("global", seed))
            generator = torch.Generator(device=device).manual_seed(seed)
            check_loss(copy, loss, images, labels)
            stages = list(self.stages)
            if stages and isinstance(stages[0], Aggregator):
                released = stages.pop(0).aggregates(copy, loss, images, labels, generator, count)
                method = getattr(released, "per_sample", "")
            else:
                released, method = [mean_gradient(copy, loss, images, labels)] * count, ""
            size = len(images) if expected_batch_size is None else expected_batch_size
            if size != len(images):  # a first stage divides its sum, noise and all, by the batch it has
                released = [tuple(g * (len(images) / size) for g in gradients) for gradients in released]
            for stage in stages:
                released = stage.process_all(released, generator)
        names = tuple(name for name, p in model.named_parameters() if p.requires_grad)
        public = tuple(stage.stage() for stage in self.stages)
        return [
            Release(names, gradients, size, public, self.guarantee, per_sample=method)
            for gradients in released
        ]


def _seed_of(purpose: str, seed: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{purpose} {seed}".encode()).digest()[:4], "big")


def check_order(stages: Sequence[type[Defense]]) -> None:
    """InputError for an aggregator anywhere but in first place."""
    for stage in stages[1:]:
        if issubclass(stage, Aggregator):
            raise InputError(
                f"{stage.name} works on each sample's gradient, so it can only come first in a chain: "
                f"not {'+'.join(s.name for s in stages)}."
            )

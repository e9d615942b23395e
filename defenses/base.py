"""What a defence is, how stages chain, and the registry they are found in."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from inspect import get_annotations
from typing import ClassVar, TypeVar

import torch
from torch import Tensor, nn

from defenses.checks import check_finite
from dpbench.protocol import (
    Claim,
    Declared,
    Guarantee,
    InputError,
    Loss,
    Reading,
    Release,
    Stage,
    defenses_registry,
)

Gradients = tuple[Tensor, ...]
"""One tensor per trainable parameter, in the order of `model.named_parameters()`."""


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

    Attacks adapt to a stage that is the last of its chain and has the method `differentiable(gradients)` or
    `adapt(objective, release)`: see docs/own-parts.md.

    A class that has a plain field `guarantee` (a `Guarantee` or None) is one that dpbench calibrates as the
    Gaussian mechanism: it is given the `noise_multiplier` sigma of a budget and the guarantee that comes with
    it, and has to add N(0, (sigma C)^2) to every entry of the sum of gradients clipped to C, which is
    `max_grad_norm`, or 1 where the class has no such field. `dpbench.testing.check_defense` tests it.

    Attributes:
        name: what it is registered under.
        repeatable: it draws noise, so that several releases of one batch differ and tell more than one.
        remembers: what it releases depends on its earlier releases; these differ, too, and are no
            independent draws.
        adds_up: the mean of several clients' releases is what it would release of all their images, but for
            the level of the noise. So an attack on the mean has to know nothing else of it.
    """

    name: ClassVar[str]
    repeatable: ClassVar[bool] = False
    remembers: ClassVar[bool] = False
    adds_up: ClassVar[bool] = False

    def stage(self) -> Stage:
        """The public description: everything an attacker may know about this stage."""
        return Stage(self.name, {name: value for name, value in self.values().items() if value is not None})

    def victim(self, model: nn.Module, loss: Loss) -> tuple[nn.Module, Loss]:
        """The network that the client trains, and its loss: those given, unless the defence changes them.

        Whoever looks at the defence sees this network: client, attacker and training. What is added is drawn
        by a fixed seed, to be trained with the rest. A network that is changed already comes back as it is.

        Args:
            model: left untouched.
            loss: mean-reduced.
        """
        return model, loss

    def claim(self, entries: int) -> Claim | None:
        """The privacy that its makers say a release has, for the audit to check; None where they claim none.

        Args:
            entries: of the gradient, all tensors together.
        """
        return None

    def read(self, release: Release) -> Reading | None:
        """What a release of which this is the last stage says of the gradient that the stage was given.

        Attackers know it, as they know the code. None where the release is that gradient as it stands, or
        where nobody says; noise of the stages is counted by `Release.noise_on_sum`.

        Args:
            release: of one or several gradients.
        """
        return None


defenses_registry.base = Defense  # it stands in `dpbench.protocol`, which cannot import this


class Aggregator(Defense):
    """A stage that sees each sample's gradient; only ever the first of a chain.

    Raises:
        TypeError: at the definition of a subclass whose `guarantee` is no field: nobody has computed it.
    """

    @property
    def guarantee(self) -> Guarantee | None:
        """The differential privacy of what `aggregate` returns; post-processing keeps it."""
        return None

    def __init_subclass__(cls) -> None:
        if "guarantee" in vars(cls) and "guarantee" not in get_annotations(cls):
            raise TypeError(
                f"{cls.__name__} states its `guarantee` itself, and tables hold no epsilon that dpbench has "
                "not computed: override `claim` with what is claimed, which `python -m dpbench.audit` checks."
            )

    @property
    def takes_updates(self) -> bool:
        """Whether it can do without each sample's gradient, so that `of_update` has an answer."""
        return False

    def of_update(
        self, update: Gradients, images: int, generator: torch.Generator, count: int
    ) -> list[Gradients]:
        """`count` releases of the update of a client that made several local steps (FedAvg).

        Args:
            update: the mean gradient of its steps, see `Release.local`.
            images: how many it has.
            generator: the source of randomness, on the device of the update.
            count: at least 1.

        Raises:
            InputError: unless `takes_updates`.
        """
        raise InputError(
            f"{self.name} works on each sample's gradient, and here the client sends an update of its local "
            "steps: leave out `local_epochs`, or use a defence of whole gradients or `unit` user."
        )

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


def sparse_reading(release: Release, bounds: tuple[Tensor, ...] | None = None) -> Reading:
    """The reading of releases in which an entry is either sent as it is or is zero.

    Args:
        release: of one or several gradients.
        bounds: see `Reading.bounds`.
    """
    shares = tuple(
        torch.stack([g != 0 for g in same]).to(same[0].dtype).mean(0)
        for same in zip(*release.each, strict=True)
    )
    return read_shares(release, shares, bounds)


def smallest_sent(gradients: Gradients, together: bool) -> tuple[Tensor, ...]:
    """The size of the smallest entry other than zero, one scalar for each tensor.

    Args:
        gradients: one release.
        together: of all tensors at once; a tensor of zeros has the bound 0 otherwise.
    """
    smallest = [g.abs()[g != 0].min() if bool(g.any()) else g.new_zeros(()) for g in gradients]
    if together:
        there = [s for s in smallest if bool(s > 0)]
        smallest = [min(there, default=smallest[0])] * len(smallest)
    return tuple(smallest)


def read_shares(
    release: Release, shares: Sequence[Tensor], bounds: tuple[Tensor, ...] | None = None
) -> Reading:
    """The reading of a release that holds these shares of the entries, and no noise of its own."""
    values = tuple(
        torch.where(s > 0, g / s.clamp_min(torch.finfo(g.dtype).tiny), 0.0)
        for g, s in zip(release.gradients, shares, strict=True)
    )
    noise = tuple(torch.zeros_like(g) for g in release.gradients)
    return Reading(values, tuple(shares), noise, bounds=bounds)


D = TypeVar("D", bound=type[Defense])


def defense(name: str) -> Callable[[D], D]:
    """Class decorator that registers a defence under `name` and makes it a frozen, keyword-only dataclass.

    Raises:
        ValueError: for a name that is taken.
        TypeError: for a parameter whose name means something else elsewhere in the program.
    """
    return defenses_registry.register(name)


def mean_gradient(model: nn.Module, loss: Loss, images: Tensor, labels: Tensor) -> Gradients:
    """The undefended gradient of the mean loss; zero for a parameter the loss does not depend on.

    Args:
        model: a copy of the victim, in the mode its gradient is taken in.
        loss: mean-reduced.
        images: float [B, C, H, W].
        labels: int64 [B].

    Raises:
        InputError: for a gradient that is not finite.
    """
    trainable = [p for p in model.parameters() if p.requires_grad]
    with torch.enable_grad():
        value = loss(model(images), labels)
    if not value.requires_grad:
        return tuple(torch.zeros_like(p) for p in trainable)
    gradients = torch.autograd.grad(value, trainable, materialize_grads=True)
    check_finite(gradients)
    return gradients

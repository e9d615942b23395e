"""The only words that victims, defences, attacks and the measurement share.

`attacks` and `defenses` import nothing else of dpbench (import-linter holds it), so an attack can only see
what leaves the client (`Release`) and what the attacker is told (`Knowledge`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import entry_points
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

T = TypeVar("T")
Loss = Callable[[Tensor, Tensor], Tensor]
"""(logits [B, K], labels [B] or soft labels [B, K]) -> scalar mean over the batch."""


class InputError(ValueError):
    """What the user gave cannot be used; the message is one sentence that says what to do (exit status 2)."""


class Registry(Generic[T], Mapping[str, T]):
    """Names to things of one kind; third-party packages add theirs through an entry-point group.

    Example:
        >>> colours = Registry("colour")
        >>> colours.add("red", 1)
        >>> colours["blue"]
        Traceback (most recent call last):
        ...
        dpbench.protocol.InputError: Unknown colour 'blue'; known: red.
    """

    def __init__(self, kind: str, group: str | None = None) -> None:
        self.kind, self._group, self._items = kind, group, {}

    def add(self, name: str, item: T) -> None:
        """Register `item`; a name taken already raises ValueError."""
        if name in self._items:
            raise ValueError(f"A {self.kind} named {name!r} is registered already.")
        self._items[name] = item

    def _load(self) -> dict[str, T]:
        group, self._group = self._group, None
        for entry in entry_points(group=group) if group else ():
            self.add(entry.name, entry.load())
        return self._items

    def __getitem__(self, name: str) -> T:
        items = self._load()
        if name not in items:
            raise InputError(f"Unknown {self.kind} {name!r}; known: {', '.join(items)}.")
        return items[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._load())

    def __len__(self) -> int:
        return len(self._load())

    def __contains__(self, name: object) -> bool:
        return name in self._load()


@dataclass(frozen=True)
class Guarantee:
    """The differential privacy that a release carries. Adjacency is add/remove of one sample, sensitivity C.

    Attributes:
        eps: budget of the whole training run with Poisson sampling; None where only the release counts.
        eps_release: budget of the attacked release(s) alone, batch fixed (q = 1, T = releases) unless the
            attacked sample was drawn for each of them.
        delta: the delta of both.
        noise_multiplier: sigma; the noise on the SUM of clipped gradients has standard deviation sigma * C.
        max_grad_norm: C, the l2 bound of each sample's gradient.
        sample_rate: q, expected batch over data-set size; 1 under the release scope.
        steps: T, optimiser steps of the training run; 1 under the release scope.
        accountant: what computed eps (`pld`, `prv`, `rdp`) or `analytic` for the single Gaussian release.
        eps_scope: `training` or `release`: which of the two epsilons the user set.
        rero_release: bound on the success of any attacker on the release(s), its prior success 0.1 (ReRo).
        adjacency: the neighbouring relation both epsilons are for.
        releases: how many noisy gradients of the batch `eps_release` and `rero_release` are about.
        eps_replace: `eps_release` for the replacement of one sample by another (sensitivity 2C).
    """

    eps: float | None
    eps_release: float
    delta: float
    noise_multiplier: float
    max_grad_norm: float
    sample_rate: float
    steps: int
    accountant: str
    eps_scope: str
    rero_release: float
    adjacency: str = "add-remove"
    releases: int = 1
    eps_replace: float | None = None


@dataclass(frozen=True)
class Stage:
    """One stage of a defence as it is publicly known: its name and its parameters."""

    name: str
    parameters: Mapping[str, float | str] = field(default_factory=dict)


@dataclass(frozen=True)
class Release:
    """All that leaves the client: gradients of the mean loss over one batch, after the defence.

    Attributes:
        names: parameter names, in the order of `gradients`.
        gradients: one tensor per trainable parameter of the model, same shapes; the mean over the releases
            where the batch was released several times.
        batch_size: the expected batch, which the sum was divided by.
        defense: the public description of what was done, stage by stage.
        guarantee: the privacy it carries, all releases together; None where there is none.
        repeats: the single releases, each like `gradients`; empty where there was one only.
    """

    names: tuple[str, ...]
    gradients: tuple[Tensor, ...]
    batch_size: int
    defense: tuple[Stage, ...] = ()
    guarantee: Guarantee | None = None
    repeats: tuple[tuple[Tensor, ...], ...] = ()

    @property
    def each(self) -> tuple[tuple[Tensor, ...], ...]:
        """Every single release, be there one or several."""
        return self.repeats or (self.gradients,)

    def noise_on_sum(self) -> float:
        """Standard deviation of the noise on the SUM of gradients in each single release; 0 without noise.

        `dp` adds sigma * C to the sum, `noise` its standard deviation to the mean; pruning is not counted.
        """
        variance = 0.0
        for stage in self.defense:
            if stage.name == "dp":
                variance += (stage.parameters["noise_multiplier"] * stage.parameters["max_grad_norm"]) ** 2
            if stage.name == "noise":
                variance += (stage.parameters["noise_std"] * self.batch_size) ** 2
        return math.sqrt(variance)


def together(releases: Sequence[Release]) -> Release:
    """Several releases of one batch as one; the guarantee of each has to be that of all of them together."""
    first, *others = releases
    if not others:
        return first
    repeats = tuple(release.gradients for release in releases)
    mean = tuple(torch.stack(same).mean(0) for same in zip(*repeats, strict=True))
    return replace(first, gradients=mean, repeats=repeats)


@dataclass(frozen=True)
class Lineup:
    """What an informed attacker is told: all samples of the batch but one, and n candidates for that one.

    Gradients are flat, in the order of the release, and clipped as the defence clips them.

    Attributes:
        images: the candidates, float32 [n, C, H, W] in [0, 1].
        labels: int64 [n].
        gradients: the candidates' gradients [n, P].
        known: sum of the known samples' gradients [P].
    """

    images: Tensor
    labels: Tensor
    gradients: Tensor
    known: Tensor


@dataclass(frozen=True)
class ImagePrior:
    """Second-order statistics of public images: pixels as a stationary Gaussian field around a mean image.

    Attributes:
        mean_image: [C, H, W] in [0, 1].
        colours: orthogonal [C, C]; row k is the k-th principal colour.
        spectrum: [C, H, W], power of each principal colour at each frequency of the orthonormal 2-D FFT.
    """

    mean_image: Tensor
    colours: Tensor
    spectrum: Tensor


@dataclass(frozen=True)
class Knowledge:
    """What the attacker is told beside the release.

    Attributes:
        model: a plain copy of the victim in the state the gradient was taken in; takes images in [0, 1].
        loss: the victim's own loss, mean-reduced.
        image_shape: (C, H, W).
        num_classes: K.
        mean: public per-channel mean of the data, in [0, 1], length C.
        std: public per-channel standard deviation, length C.
        labels: int64 [B] where the attacker knows them, else None.
        bn_stats: where `statistics` are from: `running` (the model's own), `exact` (of the attacked batch),
            `recovered` (from the client's update of the running ones) or `none`.
        statistics: mean and biased variance [channels] of each batch-norm layer's input, in the order of the
            model's modules; empty for `none` and for networks without such layers.
        lineup: the candidates of an informed attacker; None for any other.
        prior: statistics of other people's images, disjoint from the attacked ones; None where not to be had.
        generator: a module `z [B, latent_dim], y [B, K] -> images [B, C, H, W] in [0, 1]` trained on other
            people's images; None where there is none.
    """

    model: nn.Module
    loss: Loss
    image_shape: tuple[int, int, int]
    num_classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    labels: Tensor | None = None
    bn_stats: str = "none"
    statistics: tuple[tuple[Tensor, Tensor], ...] = ()
    lineup: Lineup | None = None
    prior: ImagePrior | None = None
    generator: nn.Module | None = None


@dataclass(frozen=True)
class Reconstruction:
    """What an attack hands back.

    Attributes:
        images: float32 [B, C, H, W] in [0, 1], in an order of the attack's own.
        labels: int64 [B], the labels the attack used or found, aligned with `images`.
        label_source: `known`, `inferred` or `joint`.
        gradient_distance: the objective's value at `images`, without priors (nan if it never was finite).
        start: the first guess the attack set out from, same shape as `images`; a floor.
        iterations: objective evaluations spent, over all restarts.
        seconds: time of the search, compilation excluded.
        compile_seconds: time of compilation.
        engine: what ran the iterations.
        history: objective value every so many iterations, for plots.
    """

    images: Tensor
    labels: Tensor
    label_source: str
    gradient_distance: float
    start: Tensor
    iterations: int
    seconds: float
    compile_seconds: float = 0.0
    engine: str = "eager"
    history: tuple[float, ...] = ()

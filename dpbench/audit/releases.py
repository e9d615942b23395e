"""Releases of a defence, as rows of numbers."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from defenses import Chain
from defenses.base import Gradients, PostProcessor
from dpbench.audit.canaries import SIZE, Probe, mean_output
from dpbench.protocol import Claim, Guarantee, InputError, Release
from dpbench.system.words import counted

CHUNK = 500
"""Releases made in one call."""


def distinct_seeds(seed: int, count: int) -> list[int]:
    """`count` different seeds below 2**32, all that PyTorch's generator on the CPU tells apart.

    Two equal ones would repeat noise, and so accuse a correct defence.
    """
    return np.random.default_rng(seed).choice(2**32, count, replace=False).tolist()


@dataclass(frozen=True, kw_only=True)
class Tap(PostProcessor):
    """Notes what passes and changes nothing."""

    name = "tap"
    seen: list[Gradients] = field(default_factory=list)

    def process(self, gradients: Gradients, generator: torch.Generator) -> Gradients:
        """The gradients themselves."""
        self.seen.append(gradients)
        return gradients


@dataclass(frozen=True)
class Rows:
    """Releases of one batch.

    Attributes:
        released: float64 [n, SIZE + p]: the sum of gradients, then p numbers of the public description.
        noised: float64 [n, SIZE], the sum as the stages left it which the guarantee or claim is about; later
            ones post-process it.
    """

    released: np.ndarray
    noised: np.ndarray


class Source:
    """Makes releases of a defence, each call of it with a seed of its own.

    Args:
        defense: what is audited.
        seed: decides all noise.
        count: how many releases will be asked for in all, in how many portions whatever.
        portions: how many at most.
        progress: called with the number of releases just made.

    Raises:
        InputError: for a defence that changes the network.
    """

    def __init__(
        self, defense: Chain, *, seed: int, count: int, portions: int, progress: Callable[[int], None] | None
    ) -> None:
        self._tap, covered = Tap(), _covered(defense)
        self._tapped = covered < len(defense.stages)
        stages = (*defense.stages[:covered], self._tap, *defense.stages[covered:])
        self._defense = replace(defense, stages=stages) if self._tapped else defense
        self._progress = progress
        self._model = Probe()
        if defense.victim(self._model, mean_output)[0] is not self._model:
            raise InputError(
                f"{defense.name} changes the network, and the audit is about what is done to the gradient of "
                "a network of its own: leave out the stage that changes it."
            )
        # one by one where a release depends on those before it in the same call
        self._calls = 1 if any(stage.remembers for stage in defense.stages) else CHUNK
        self._count, self._portions = count, portions
        self._seeds = iter(self._fresh(seed))

    def _fresh(self, seed: int) -> list[int]:
        return distinct_seeds(seed, self._count // self._calls + self._portions)

    def check_description(self, batches: Sequence[Tensor], seed: int) -> None:
        """Make releases one by one from now on if what is published beside the gradient varies.

        A call has one description for all its releases; as evidence each has to have its own.
        """
        numbers = [self._make(images, each, 1)[1].tolist() for images in batches for each in (seed, seed + 1)]
        if any(each != numbers[0] for each in numbers):
            self._calls = 1
            self._seeds = iter(self._fresh(seed))

    def take(self, images: Tensor, count: int) -> Iterator[Rows]:
        """`count` releases of a batch [B, *SHAPE], some at a time.

        Raises:
            InputError: for a release that is not finite, and where the defence fails.
        """
        while count > 0:
            size = min(self._calls, count)
            rows, numbers = self._make(images, next(self._seeds), size)
            released = np.concatenate([rows.released, np.tile(numbers, (size, 1))], axis=1)
            if not np.isfinite(released).all():
                raise InputError("The defence releases numbers that are not finite, on finite gradients.")
            if self._progress is not None:
                self._progress(size)
            count -= size
            yield Rows(released, rows.noised)

    def _make(self, images: Tensor, seed: int, count: int) -> tuple[Rows, np.ndarray]:
        labels = torch.zeros(len(images), dtype=torch.int64)
        self._tap.seen.clear()
        name = "+".join(stage.name for stage in self._defense.stages if stage is not self._tap)
        try:
            made = self._defense.releases(self._model, mean_output, images, labels, seed=seed, count=count)
        except InputError:
            raise
        except Exception as error:  # whatever its author got wrong is no finding about its privacy
            reason = " ".join(f"{type(error).__name__}: {error}".split()).rstrip(".")
            raise InputError(f"{name} fails when it makes a release ({reason}).") from error
        if len(made) != count:
            raise InputError(f"{name} made {counted(len(made), 'release')}, and {count} were asked for.")
        released = _sums([release.gradients for release in made], len(images))
        noised = _sums(self._tap.seen, len(images)) if self._tapped else released
        return Rows(released, noised), _numbers(made[0])


def _covered(defense: Chain) -> int:
    """How many stages the guarantee is about, or else the makers' claim; all of them where there is neither.

    What follows is post-processing.
    """

    def promise(chain: Chain) -> Guarantee | Claim | None:
        return chain.claim(SIZE) if defense.guarantee is None else chain.guarantee

    stages = defense.stages
    if promise(defense) is None:
        return len(stages)
    prefixes = (replace(defense, stages=stages[:n]) for n in range(1, len(stages)))
    found = (n for n, prefix in enumerate(prefixes, 1) if promise(prefix) == promise(defense))
    return next(found, len(stages))


def _sums(gradients: Sequence[Gradients], batch_size: int) -> np.ndarray:
    flat = torch.stack([torch.cat([g.flatten() for g in each]) for each in gradients])
    return flat.double().numpy() * batch_size


def _numbers(release: Release) -> np.ndarray:
    """What the release says beside the gradient: the batch size and every stage's parameters."""
    said: list[float | str] = [release.batch_size]
    for stage in release.defense:
        said += [value for _, value in sorted(stage.parameters.items())]
    return np.array([zlib.crc32(each.encode()) if isinstance(each, str) else float(each) for each in said])

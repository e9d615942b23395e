"""How stages chain: one after the other, the one that sees each sample's gradient first."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from defenses.base import Aggregator, Defense, mean_gradient
from defenses.checks import check_batch, check_handed_back, check_loss
from defenses.copies import in_release_mode
from defenses.local_training import mean_of_steps
from dpbench.protocol import Claim, Guarantee, InputError, LocalTraining, Loss, Release, full_precision

NONE = "none"
"""The name of the chain without stages."""


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

    def victim(self, model: nn.Module, loss: Loss) -> tuple[nn.Module, Loss]:
        """The network that the client trains under these stages, and its loss; see `Defense.victim`."""
        for stage in self.stages:
            model, loss = stage.victim(model, loss)
        return model, loss

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
        local: LocalTraining | None = None,
    ) -> list[Release]:
        """What the client sends where it is asked `count` times for the gradient of the same batch.

        The guarantee is that of each single one.

        Args:
            model: the victim, left untouched (gradients, modes, statistics and hooks). The gradient is that
                of `victim(model, loss)`, taken with dropout off, whatever the mode and the defence; batch
                norm keeps its mode.
            loss: mean-reduced over the batch, which is checked.
            images: float [B, C, H, W] on the model's device.
            labels: int64 [B] (or soft labels [B, K]) on the model's device.
            seed: decides the noise; the same seed gives the same releases on the same device. The caller's
                random state is left as it was.
            count: how many, at least 1.
            expected_batch_size: what the sum is divided by; the size of the batch unless given. DP-SGD
                divides by a public number, whoever is in the batch.
            local: the client trains on the batch like this and sends the update of its weights, which the
                stages are applied to; None sends the gradient.

        Raises:
            TypeError, ValueError: for a stage that hands back something else than gradients of the model.
            InputError: for an empty batch, a model whose output is random with dropout off, a loss that is
                not a mean, gradients that are not finite, a model the first stage cannot treat, or a stage
                that needs each sample's gradient where there is an update only.
        """
        check_batch(model, images, labels)
        model, loss = self.victim(model, loss)
        device, copy = images.device, in_release_mode(model)
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), full_precision(device):
            # for a third party's stage that does not use the generator: a stream apart from the noise's
            _seed_globally(device, _seed_of("global", seed))
            generator = torch.Generator(device=device).manual_seed(seed)
            check_loss(copy, loss, images, labels)
            stages = list(self.stages)
            shapes = [p.shape for p in copy.parameters() if p.requires_grad]
            if local is not None:
                update, method = mean_of_steps(copy, loss, images, labels, local), ""
                released = [update] * count
                if stages and isinstance(first := stages[0], Aggregator):
                    released = first.of_update(update, len(images), generator, count)
                    _check(stages.pop(0), released, shapes)
            elif stages and isinstance(first := stages[0], Aggregator):
                released = first.aggregates(copy, loss, images, labels, generator, count)
                _check(stages.pop(0), released, shapes)
                method = getattr(released, "per_sample", "")
            else:
                released, method = [mean_gradient(copy, loss, images, labels)] * count, ""
            size = len(images) if expected_batch_size is None else expected_batch_size
            if size != len(images):  # a first stage divides its sum, noise and all, by the batch it has
                released = [tuple(g * (len(images) / size) for g in gradients) for gradients in released]
            for stage in stages:
                released = stage.process_all(released, generator)
                _check(stage, released, shapes)
        names = tuple(name for name, p in model.named_parameters() if p.requires_grad)
        public = tuple(stage.stage() for stage in self.stages)
        return [
            Release(names, gradients, size, public, self.guarantee, per_sample=method, local=local)
            for gradients in released
        ]


def _check(stage: Defense, released: Sequence[Any], shapes: Sequence[torch.Size]) -> None:
    for gradients in released:
        check_handed_back(stage.name, gradients, shapes)


def _seed_globally(device: torch.device, seed: int) -> None:
    # torch.manual_seed is for all devices, and only the state of this one is put back
    if device.type == "cpu":
        torch.default_generator.manual_seed(seed)
    else:
        torch.manual_seed(seed)


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

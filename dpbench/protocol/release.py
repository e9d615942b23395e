"""What leaves the client, and the privacy it carries."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from dpbench.protocol import opacus_step, sent
from dpbench.protocol.accounted import Accounted, accounted
from dpbench.protocol.claim import classical_noise_multiplier
from dpbench.protocol.clipped import lengths
from dpbench.protocol.factorisation import Factorisation
from dpbench.protocol.local_training import LocalTraining, Weights, counted, update_of


@dataclass(frozen=True)
class Guarantee:
    """The differential privacy that a release carries. Adjacency is add/remove of one unit, sensitivity C.

    Attributes:
        eps: budget of the whole training run with Poisson sampling; None where only the release counts.
        eps_release: budget of the attacked release(s) alone, batch fixed (q = 1, T = releases) unless the
            attacked sample was drawn for each of them.
        delta: the delta of both.
        noise_multiplier: sigma; the noise on the SUM of clipped gradients has standard deviation sigma * C.
        max_grad_norm: C, the l2 bound of each unit's gradient.
        sample_rate: q, the training's expected batch over data-set size; 1 under the release scope.
        steps: T, optimiser steps of the training run; 1 under the release scope.
        accountant: what computed eps (`pld`, `prv`, `rdp`), or `analytic` for full-batch releases;
            `rdp` also where `pld` fell back to the Rényi bound.
        eps_scope: `training` or `release`: which of the two epsilons the user set.
        rero_release: bound on the success of any attacker on the release(s), its prior success 0.1 (ReRo).
        adjacency: the neighbouring relation both epsilons are for.
        releases: how many noisy gradients of the batch `eps_release` and `rero_release` are about.
        eps_replace: `eps_release` for the replacement of one unit by another (sensitivity 2C).
        unit: what is added, removed or replaced: a `record`, or a `user` with all its records.
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
    unit: str = "record"


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
        gradients: one tensor per trainable parameter of the model, same shapes; where the batch was released
            several times, their mean, under `dp-ftrl` the weighted one with least noise.
        batch_size: the expected batch, which the sum was divided by.
        defense: the public description of what was done, stage by stage.
        guarantee: the privacy it carries, all releases together; None where there is none.
        repeats: the single releases, each like `gradients`; empty where there was one only.
        per_sample: what computed each sample's gradient before it was clipped: `opacus` (its hooks),
            `functorch` (weights of its own for each) or `loop` (one backward pass for each), checked; empty
            where nothing was clipped.
        clients: how many clients' sum it is; the batch is that of all of them, with equally many images each.
        local: the client's local training, where it sent the update of its weights (FedAvg) and not a
            gradient; `gradients` are then (weights before - weights after) / (lr K), the mean gradient of
            its K steps, and the batch is all its images. The server asked for this training, so it is public.
        accounted: what Opacus' accountant was told of the training that the release is from, where one counts
            its steps.
        clipped: how long the gradients were that a step of Opacus clipped, of its last part at least. They
            are secret, and only for checks: no attack is given them.
    """

    names: tuple[str, ...]
    gradients: tuple[Tensor, ...] = field(repr=False)
    batch_size: int
    defense: tuple[Stage, ...] = ()
    guarantee: Guarantee | None = None
    repeats: tuple[tuple[Tensor, ...], ...] = field(default=(), repr=False)
    per_sample: str = ""
    clients: int = 1
    local: LocalTraining | None = None
    accounted: Accounted | None = None
    clipped: tuple[float, ...] = field(default=(), repr=False)

    @classmethod
    def from_optimizer(cls, optimizer: Any, model: nn.Module | None = None) -> Release:
        """What a step of Opacus' `DPOptimizer` sent: its noisy mean gradient, sigma, C and expected batch.

        Args:
            optimizer: after `step()` and before `zero_grad()`. It clips the whole gradient to one norm.
            model: the one it steps; needed under ghost clipping, and where the optimiser has several groups
                of parameters.

        Raises:
            InputError: for another optimiser, one that has not added its noise yet, or whose sigma or C are
                not those of the step, and without a model that is needed.
        """
        optimizer = sent.bare_optimizer(optimizer)
        names, gradients, expected, setting = sent.of_optimizer(optimizer, model)
        opacus_step.check_norm(optimizer, model)
        opacus_step.check_noise(optimizer)
        stage = Stage("dp" if "noise_multiplier" in setting else "clip", setting)
        known = accounted(optimizer, model)
        opacus_step.check_counted(optimizer, known)
        read = {"accounted": known, "clipped": lengths(optimizer, model)}
        return cls(names, gradients, expected, (stage,), per_sample="opacus", **read)

    @classmethod
    def from_gradients(cls, model: nn.Module, *, batch_size: int, defense: Sequence[Stage] = ()) -> Release:
        """The gradients that a model of plain PyTorch holds in `.grad`.

        Args:
            model: after `backward()` of a loss that is the mean over the batch.
            batch_size: images in the batch.
            defense: what was done to the gradients before this call, stage by stage; nothing by default.

        Raises:
            InputError: where the model holds no gradient, or for a batch of no images.
        """
        batch_size = counted("batch_size", batch_size)
        names, gradients = sent.of_model(model)
        return cls(names, gradients, batch_size, tuple(defense))

    @classmethod
    def from_update(
        cls,
        before: nn.Module | Weights,
        after: nn.Module | Weights,
        *,
        lr: float,
        local_steps: int,
        batch_size: int,
        images: int | None = None,
        defense: Sequence[Stage] = (),
    ) -> Release:
        """The update that a client of FedAvg sends: its weights after several steps of plain SGD.

        It carries no guarantee. What is given here is what the server knows, because it asked for it.

        Args:
            before: the model that the server sent out, or its state dict.
            after: the client's model, or its state dict.
            lr: learning rate of the local steps, without momentum and weight decay.
            local_steps: K, how many there were: whole epochs over the images, always in one order.
            batch_size: images in each step; the last one of an epoch may have fewer.
            images: how many the client has; `local_steps` times `batch_size` unless given, one epoch.
            defense: what was done to the update before this call, stage by stage; nothing by default.

        Raises:
            InputError: for models that do not fit each other, weights that are not finite or did not change,
                buffers that changed, and numbers that make no local training.
        """
        passed = counted("local_steps", local_steps) * counted("batch_size", batch_size)
        count = passed if images is None else images
        local = LocalTraining.of_steps(local_steps, batch_size, lr, count)
        update = update_of(before, after)
        gradients = tuple((each / local.length(count)).float() for each in update.values())
        return cls(tuple(update), gradients, count, tuple(defense), local=local)

    @property
    def each(self) -> tuple[tuple[Tensor, ...], ...]:
        """Every single release, be there one or several."""
        return self.repeats or (self.gradients,)

    def noise_on_sum(self) -> float:
        """Standard deviation of the noise on the SUM of gradients in each single release; 0 without noise.

        `dp` adds sigma * C to the sum, `noise`, `local-dp` and `sparse-vector` (to what it sends) their
        standard deviation to the mean. Pruning is not counted. Divided by the root of the number of releases
        it is that of `gradients`. Where these are a weighted mean, because the noise of `dp-ftrl` is
        correlated, it is the level of independent noise that would leave as much on a plain mean.
        """
        variance, releases = 0.0, len(self.each)
        bands = max((_bands(stage) for stage in self.defense), default=1)
        # a weighted mean leaves more of independent noise than a plain one
        more = 1.0 if bands == 1 else releases * float(_weights(releases, bands).square().sum())
        for stage in self.defense:
            if stage.name == "noise":
                variance += more * (stage.parameters["noise_std"] * self.batch_size) ** 2
            if stage.name == "sparse-vector":
                scale = 2 * stage.parameters["svt_gamma"] / stage.parameters["svt_noise_var"]
                variance += more * 2 * (scale * self.batch_size) ** 2  # of a Laplace draw
            if stage.name == "local-dp":
                given = stage.parameters
                multiplier = classical_noise_multiplier(given["nominal_eps"], given["nominal_delta"])
                variance += more * (multiplier * given["nominal_sensitivity"] * self.batch_size) ** 2
            if stage.name in ("dp", "dp-ftrl"):
                level = (stage.parameters["noise_multiplier"] * stage.parameters["max_grad_norm"]) ** 2
                if bands > 1:
                    level *= releases / Factorisation(releases, bands).sensitivity() ** 2
                variance += level
        return math.sqrt(variance)


def _bands(stage: Stage) -> int:
    """How far back the noise of a release reaches; 1 where every release has its own."""
    return int(stage.parameters["bands"]) if stage.name == "dp-ftrl" else 1


def _weights(releases: int, bands: int) -> Tensor:
    """Of each of several releases in their mean."""
    return Factorisation(releases, bands).best_weights()


def combined(releases: Sequence[Release]) -> Release:
    """Several releases of one batch as one; the guarantee of each has to be that of all of them together.

    Its gradient is their mean: of independent noise nobody can remove more. Correlated noise is public up to
    its draw, so the mean is weighted.
    """
    first, *others = releases
    if not others:
        return first
    repeats = tuple(release.gradients for release in releases)
    bands = max((_bands(stage) for stage in first.defense), default=1)
    if bands == 1:
        mean = tuple(torch.stack(same).mean(0) for same in zip(*repeats, strict=True))
    else:
        weights = _weights(len(repeats), bands).to(first.gradients[0])
        mean = tuple(torch.tensordot(weights, torch.stack(same), 1) for same in zip(*repeats, strict=True))
    return replace(first, gradients=mean, repeats=repeats)

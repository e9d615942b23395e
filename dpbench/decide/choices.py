"""One choice of noise for a training, and everything that follows from it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from dpbench import privacy
from dpbench.privacy.calibration import sampling
from dpbench.privacy.gaussian_dp import nearest_gaussian
from dpbench.privacy.group import grouped
from dpbench.privacy.targets import noise_for_advantage, noise_for_bound, noise_for_server_bound
from dpbench.privacy.tradeoff import TradeOff, trade_off
from dpbench.protocol import InputError
from dpbench.system.words import counted

RARE = 1e-3
"""False positive rate at which the true positive rate is told."""


@dataclass(frozen=True, kw_only=True)
class Training:
    """A training with DP-SGD: Poisson sampling, add/remove adjacency, noise on the sum of clipped gradients.

    Attributes:
        train_size: N, images in the training set.
        train_batch_size: expected batch.
        epochs: passes over the training set.
        delta: of the budget.

    Raises:
        InputError: where N is smaller than the batch, or there are 2**63 steps or more.
    """

    train_size: int
    train_batch_size: int
    epochs: float
    delta: float

    def __post_init__(self) -> None:
        _ = self.sample_rate

    @property
    def sample_rate(self) -> float:
        """q: the chance of an image to be in a step's batch."""
        return sampling(self.train_size, self.train_batch_size, self.epochs)[0]

    @property
    def steps(self) -> int:
        """T: optimiser steps."""
        return sampling(self.train_size, self.train_batch_size, self.epochs)[1]


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One row: a noise multiplier, and what an attacker can get at most.

    Attributes:
        eps: budget of the whole training at its delta.
        noise_multiplier: sigma; the noise on the sum of clipped gradients has standard deviation sigma * C.
        gaussian_mu: mu of the nearest Gaussian trade-off curve.
        gaussian_distance: how far that curve is from the training's own (`privacy.gaussian_dp`).
        eps_release: budget of one gradient of a batch that is known to hold the image (q = 1, T = 1).
        rero_release: bound on the chance to rebuild the image from that gradient, prior 0.1.
        rero_training: the same bound for all gradients of the training together, if nobody knows which
            batches hold the image.
        rero_server: the same bound if the attacker knows that, as a curious server may.
        kappa: the user's own prior.
        rero_release_kappa: `rero_release` for that prior.
        rero_training_kappa: `rero_training` for that prior.
        rero_server_kappa: `rero_server` for that prior.
        advantage: membership over the whole training: true less false positive rate, at most.
        power: true positive rate at a false positive rate of 0.001, at most.
        images_per_user: images that one person has in the training set.
        eps_user: budget of such a person at the same delta; inf where none was found.
        curve: the training's trade-off function.
    """

    eps: float
    noise_multiplier: float
    gaussian_mu: float
    gaussian_distance: float
    eps_release: float
    rero_release: float
    rero_training: float
    rero_server: float
    kappa: float
    rero_release_kappa: float
    rero_training_kappa: float
    rero_server_kappa: float
    advantage: float
    power: float
    images_per_user: int
    eps_user: float
    curve: TradeOff = field(repr=False)


def for_eps(training: Training, eps: float, *, kappa: float, images_per_user: int) -> Choice:
    """The choice that spends `eps` over the training.

    Raises:
        InputError: for an eps out of reach, or a value outside its range.
    """
    sigma = privacy.noise_multiplier(eps, training.delta, training.sample_rate, training.steps)
    return _choice(training, sigma, eps, kappa, images_per_user)


def for_bound(training: Training, bound: float, *, kappa: float, images_per_user: int) -> Choice:
    """The least noise at which nobody rebuilds an image from the whole training more often than `bound`.

    Nobody, that is, who does not know which batches hold the image.

    Args:
        training: what the noise is for.
        bound: chance to rebuild it, above `kappa`.
        kappa: the chance without the training.
        images_per_user: images of one person.

    Raises:
        InputError: for a bound out of reach, or a value outside its range.
    """
    sigma = noise_for_bound(bound, kappa, training.sample_rate, training.steps)
    return _choice(training, sigma, None, kappa, images_per_user)


def for_server_bound(training: Training, bound: float, *, kappa: float, images_per_user: int) -> Choice:
    """`for_bound` against a server that knows which batches hold the image; args and errors are the same."""
    sigma = noise_for_server_bound(bound, kappa, training.sample_rate, training.steps)
    return _choice(training, sigma, None, kappa, images_per_user)


def for_advantage(training: Training, advantage: float, *, kappa: float, images_per_user: int) -> Choice:
    """The least noise at which nobody's membership advantage over the whole training is above `advantage`.

    Args and errors are those of `for_bound`.
    """
    sigma = noise_for_advantage(advantage, training.sample_rate, training.steps)
    return _choice(training, sigma, None, kappa, images_per_user)


def choices(
    training: Training,
    *,
    eps: Sequence[float] = (),
    target_bound: float | None = None,
    target_server_bound: float | None = None,
    target_advantage: float | None = None,
    kappa: float = privacy.PRIOR_SUCCESS,
    images_per_user: int = 1,
) -> list[Choice]:
    """Every choice that was asked for, the most noise first.

    Args:
        training: what the noise is for.
        eps: budgets of the training.
        target_bound: a bound on reconstruction that must not be passed, at prior `kappa`; None asks for none.
        target_server_bound: likewise for a server that knows which batches hold the image.
        target_advantage: likewise on the membership advantage.
        kappa: chance to rebuild an image without the training, in (0, 1).
        images_per_user: images of one person, 1 to 1000, of the training set's N.

    Raises:
        InputError: for a value outside its range or out of reach.

    Example:
        >>> training = Training(train_size=20_000, train_batch_size=256, epochs=30, delta=1e-5)
        >>> [round(choice.noise_multiplier, 2) for choice in choices(training, eps=[1, 8])]
        [2.45, 0.72]
    """
    if images_per_user > training.train_size:
        raise InputError(
            f"One person cannot have {counted(images_per_user, 'image')} of {training.train_size:,}: lower "
            "`images_per_user`, or give the `train_size` of your training."
        )
    shared = {"kappa": kappa, "images_per_user": images_per_user}
    found = [for_eps(training, float(value), **shared) for value in dict.fromkeys(eps)]
    if target_bound is not None:
        found.append(for_bound(training, target_bound, **shared))
    if target_server_bound is not None:
        found.append(for_server_bound(training, target_server_bound, **shared))
    if target_advantage is not None:
        found.append(for_advantage(training, target_advantage, **shared))
    return sorted(found, key=lambda choice: -choice.noise_multiplier)


def _choice(training: Training, sigma: float, eps: float | None, kappa: float, images: int) -> Choice:
    rate, steps, delta = training.sample_rate, training.steps, training.delta
    release = {prior: privacy.reconstruction_bound(sigma, kappa=prior) for prior in _priors(kappa)}
    server = {
        prior: privacy.reconstruction_bound(sigma, rate, steps, prior, batches_known=True)
        for prior in _priors(kappa)
    }
    curve = trade_off(sigma, rate, steps)
    # who does not know the batches can do no more than who does; with little noise the curve says otherwise
    hidden = {prior: min(curve.power(prior), server[prior]) for prior in _priors(kappa)}
    # without sampling the curve is Gaussian, and of its end with little noise nothing could tell which
    mu, distance = (math.sqrt(steps) / sigma, 0.0) if rate == 1 else nearest_gaussian(curve)
    eps = privacy.epsilon(sigma, delta, rate, steps) if eps is None else eps
    return Choice(
        eps=eps,
        noise_multiplier=sigma,
        gaussian_mu=mu,
        gaussian_distance=distance,
        eps_release=privacy.epsilon(sigma, delta),
        rero_release=release[privacy.PRIOR_SUCCESS],
        rero_training=hidden[privacy.PRIOR_SUCCESS],
        rero_server=server[privacy.PRIOR_SUCCESS],
        kappa=kappa,
        rero_release_kappa=release[kappa],
        rero_training_kappa=hidden[kappa],
        rero_server_kappa=server[kappa],
        advantage=curve.advantage,
        power=curve.power(RARE),
        images_per_user=images,
        eps_user=eps if images == 1 else grouped(curve, images).epsilon(delta),
        curve=curve,
    )


def _priors(kappa: float) -> tuple[float, float]:
    return privacy.PRIOR_SUCCESS, kappa

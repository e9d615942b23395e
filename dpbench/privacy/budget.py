"""The privacy budget: what a user states, and the guarantee that follows from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from dpbench.protocol import Guarantee, InputError
from dpbench.protocol.parameters import Declared, declare, parameter

_OF_A_TRAINING = {"eps_scope": "training"}


@dataclass(frozen=True, kw_only=True)
class Budget(Declared):
    """The budget that a defence with a guarantee may spend.

    Raises:
        InputError: for a value of the wrong type or outside its range.

    Example:
        >>> Budget(eps=8.0, eps_scope="release").changed()
        {'eps': 8.0, 'eps_scope': 'release'}
    """

    eps: float | None = parameter(
        1.0, "privacy budget; 1 unless `noise_multiplier` is given", symbol="ε", above=0
    )
    eps_scope: Literal["training", "release"] = parameter(
        "training",
        "whether `eps` is the budget of a whole training run or of the attacked releases",
        symbol="scope",
    )
    delta: float = parameter(1e-5, "delta of the budget", symbol="δ", above=0, at_most=0.5)
    train_size: int = parameter(
        50_000,
        "samples in the client's training set, which the training budget is for; with `unit` user, clients "
        "in all",
        symbol="N",
        at_least=1,
        only_if=_OF_A_TRAINING,
    )
    train_batch_size: int | Literal["batch"] = parameter(
        256,
        "expected batch of the client's training, of which the attacked batch is a part; batch: the attacked "
        "batch is the whole of it; with `unit` user, clients in a round",
        symbol="training batch",
        at_least=1,
        only_if=_OF_A_TRAINING,
    )
    epochs: float = parameter(10.0, "passes over the training set", above=0, only_if=_OF_A_TRAINING)
    accountant: Literal["pld", "prv", "rdp"] = parameter(
        "pld",
        "what computes the training budget: pld is tight, prv (Opacus') slower, rdp looser",
        only_if=_OF_A_TRAINING,
    )

    def guarantee(
        self,
        *,
        noise_multiplier: float | None,
        max_grad_norm: float,
        batch_size: int,
        releases: int = 1,
        inclusion: float = 1.0,
    ) -> Guarantee:
        """The noise that the budget allows, or what a given noise spends, with everything that follows.

        Args:
            noise_multiplier: sigma, above 0; None where `eps` is given.
            max_grad_norm: clip norm C, above 0.
            batch_size: images in the attacked batch, at most the training's where its budget counts.
            releases: how many noisy gradients of the same batch are attacked, at least 1.
            inclusion: chance of the attacked sample to be in each of them, in (0, 1].

        Raises:
            InputError: where both or neither of `eps` and `noise_multiplier` are given, for a value outside
                its range, and for an eps out of the accountant's reach.

        Example:
            >>> budget = Budget(eps=8.0, eps_scope="release")
            >>> found = budget.guarantee(noise_multiplier=None, max_grad_norm=1.0, batch_size=4)
            >>> round(found.noise_multiplier, 4)
            0.6002
        """
        from dpbench.privacy.calibration import calibrate  # SciPy takes a second to import

        train_batch_size = self.training_batch(batch_size)
        if self.eps_scope == "training" and batch_size > train_batch_size:
            raise InputError(
                f"An attacked batch of {batch_size} is no part of a training batch of {train_batch_size}: "
                "give a larger `train_batch_size`, or the word batch."
            )
        return calibrate(
            **self.values() | {"train_batch_size": train_batch_size},
            noise_multiplier=noise_multiplier,
            max_grad_norm=max_grad_norm,
            releases=releases,
            inclusion=inclusion,
        )

    def training_batch(self, batch_size: int) -> int:
        """The expected batch of the training where `batch_size` images are attacked."""
        return batch_size if self.train_batch_size == "batch" else self.train_batch_size


declare(Budget)  # no registry holds it, and nobody else's parameter may be called `eps`

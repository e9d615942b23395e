"""Whether the epsilon of a training follows from what a user says of it, and from what Opacus counted."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from dpbench.protocol import InputError, Release
from dpbench.system.words import counted

_TINY = 1e-6
"""Relative room for the rounding of a sample rate."""
_NEVER = math.log(1e-9)
"""Chance, as a logarithm, below which a batch was not drawn as it is said to have been."""
_ALONE = "leave out `train_size` and `epochs`, for the epsilon of the release alone"


def unread(release: Release, budget: Mapping[str, Any]) -> list[str]:
    """A sentence where the epsilon of a training rests on what a user says of its sampling alone.

    Args:
        release: read from an optimiser of Opacus, or not.
        budget: of the training, with `train_size` or without.
    """
    if "train_size" not in budget or (
        release.accounted is not None and release.accounted.poisson is not None
    ):
        return []
    why = "the model was not given to `from_optimizer`, or its `grad_sample_mode` does not tell"
    known = "" if release.accounted is None else f" ({why})"
    if _of_users(release):
        return [
            "How the clients of this training were drawn could not be read: its epsilon holds only if every "
            "client was drawn with q = `train_batch_size` / `train_size` by itself (Poisson sampling) in "
            "every round, and rounds of a fixed number of clients are none of that."
        ]
    return [
        "How the batches of this training were drawn could not be read" + known + ": its epsilon holds only "
        "if every image was drawn with q = batch / `train_size` by itself (Poisson sampling) in every step, "
        "and shuffled batches of one size are none of that."
    ]


def _of_users(release: Release) -> bool:
    return any(stage.parameters.get("unit") == "user" for stage in release.defense)


def crowded(release: Release, budget: Mapping[str, Any], count: int) -> list[str]:
    """A sentence where a step of a training has more images than Poisson sampling would have drawn.

    Opacus' accountant counts one batch for a step that the user let take several.

    Args:
        release: as it was sent, a mean over the expected batch.
        budget: of the training, with `train_size` or without.
        count: images of the step.
    """
    if "train_size" not in budget or _of_users(release):
        return []
    given = budget.get("train_batch_size")
    expected = max(release.batch_size, given if isinstance(given, int) else 1)
    # Chernoff's bound on the chance of so many, of a Poisson variable and so of a binomial one
    if count <= expected or count - expected - count * math.log(count / expected) > _NEVER:
        return []
    return [
        f"The step has {counted(count, 'image')} where {expected:,} are expected, which is more than Poisson "
        "sampling draws. If it takes several batches (`signal_skip_step`), an image may be in each of them, "
        "Opacus counts one, and the epsilon of the training does not hold: step after each batch, and split "
        "large ones with `BatchMemoryManager`."
    ]


def check_stated(budget: Mapping[str, Any]) -> None:
    """InputError for half of a training: of one that was really made, no default is true."""
    if "train_size" in budget and budget.get("epochs") is None:
        raise InputError(
            "Give the `epochs` of the whole training with `train_size`, as its epsilon grows with them; or "
            f"{_ALONE}."
        )
    for name in ("epochs", "train_batch_size"):
        if name in budget and "train_size" not in budget:
            raise InputError(f"`{name}` is of a training: give its `train_size`, too, or leave it out.")
    if budget.get("eps_scope") == "training" and "train_size" not in budget:
        raise InputError("The epsilon of a training takes its `train_size` and `epochs`: give them, too.")


def expected_batch(release: Release, budget: Mapping[str, Any]) -> int:
    """The batch that gives a training's sample rate q = batch / `train_size`: never a smaller q than it had.

    Args:
        release: read from an optimiser of Opacus, or not.
        budget: with `train_size`; a `train_batch_size` in it is checked and returned.

    Raises:
        InputError: where Opacus' accountant shows that no single sigma and q describe the training, that its
            batches were not drawn by Poisson sampling, that they are not those of such a `train_size`, or
            that there were more of them already than the epochs have; and for a client whose round is not
            known.
    """
    known, size = release.accounted, budget["train_size"]
    given = budget.get("train_batch_size")
    if _of_users(release):
        if given is None:
            raise InputError(
                "With `unit` user the budget is of rounds of clients: give the clients that a round is "
                "expected to have as `train_batch_size`, and all there are as `train_size`."
            )
        return 1 if given == "batch" else given
    # the batch that is expected, and not the images that were in this one
    batch = release.batch_size if given in (None, "batch") else given
    if known is None:
        return batch
    if known.poisson is False:
        raise InputError(
            "The epsilon of a training rests on Poisson sampling, and Opacus' PrivacyEngine did not sample "
            f"so here (`poisson_sampling=False`): {_ALONE}. If other means draw your batches so, call "
            "`model.forbid_grad_accumulation()` before the step."
        )
    sigmas = list(dict.fromkeys(sigma for sigma, _, _ in known.steps))
    rates = list(dict.fromkeys(rate for _, rate, _ in known.steps))
    if len(sigmas) > 1 or len(rates) > 1:
        what, values = ("noise multiplier", sigmas) if len(sigmas) > 1 else ("sample rate", rates)
        listed = ", ".join(f"{value:.3g}" for value in values[:4]) + (", ..." if len(values) > 4 else "")
        raise InputError(
            f"The {what} of this training was not the same in all steps ({listed}), so its epsilon is not "
            f"that of one: ask Opacus' accountant for it, and {_ALONE}."
        )
    (rate,) = rates
    _check_steps(sum(count for _, _, count in known.steps), rate, budget.get("epochs"))
    if given not in (None, "batch"):
        if batch < rate * size * (1 - _TINY):
            raise InputError(
                f"Opacus sampled with q = {rate:.4g}, and `train_batch_size` / `train_size` is "
                f"{batch / size:.4g}, which would make the epsilon too small: leave out `train_batch_size`."
            )
        return batch
    # Opacus rounds q N down to the expected batch
    if not release.batch_size <= rate * size * (1 + _TINY) < (release.batch_size + 1) * (1 + 2 * _TINY):
        fewest, most = release.batch_size / rate, (release.batch_size + 1) / rate
        raise InputError(
            f"Opacus sampled with q = {rate:.4g} and expected {release.batch_size} images in a batch, as for "
            f"{math.ceil(fewest * (1 - _TINY)):,} to {math.ceil(most * (1 - _TINY)) - 1:,} images, and "
            f"`train_size` is {size:,}: give the number of images of the training."
        )
    return math.ceil(rate * size * (1 - _TINY))


def epochs_of(release: Release, budget: Mapping[str, Any], batch: int) -> float:
    """The epochs in which batches of `batch` are no fewer steps than Opacus makes in those of `budget`.

    A batch that is rounded up, or stated larger than it was, makes fewer of them, and where there is little
    noise fewer larger batches give away less.

    Args:
        release: read from an optimiser of Opacus, or not.
        budget: with `train_size` and `epochs`.
        batch: of `expected_batch`.
    """
    known, size, epochs = release.accounted, budget["train_size"], budget["epochs"]
    if known is None:
        return epochs
    made = _steps(epochs, known.steps[-1][1])
    return epochs if epochs * size / batch > made - 1 else made * (1 - _TINY / made) * batch / size


def _steps(epochs: float, rate: float) -> int:
    """Steps that Opacus makes in so many epochs; a last one that is begun counts."""
    return math.ceil(epochs / rate * (1 - _TINY))


def _check_steps(made: int, rate: float, epochs: Any) -> None:
    """InputError where more steps were made already than a training of so many epochs has."""
    if not isinstance(epochs, int | float):
        return  # its own complaint follows
    whole = _steps(epochs, rate)
    if made > whole:
        raise InputError(
            f"Opacus counted {counted(made, 'step')} of this training so far, and `epochs` {epochs:g} makes "
            f"{whole:,}, which would make the epsilon too small: give the epochs of the whole "
            "training."
        )

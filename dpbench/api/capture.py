"""`capture`: what one optimiser step sends, taken from a training loop as it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from dpbench.protocol import InputError, Release, sent
from dpbench.protocol.local_training import counted
from dpbench.victim.unwrapped import unwrapped


@dataclass
class Captured:
    """What the steps inside a `with capture(...)` block sent.

    Attributes:
        steps: for each step, a copy of the model as it was before the step, and what the step sent.
    """

    steps: list[tuple[nn.Module, Release]] = field(default_factory=list)

    @property
    def model(self) -> nn.Module:
        """The model before the only step; raises InputError as `release` does."""
        return self._only()[0]

    @property
    def release(self) -> Release:
        """What the only step sent.

        Raises:
            InputError: for no step, or several, which `steps` holds.
        """
        return self._only()[1]

    def _only(self) -> tuple[nn.Module, Release]:
        if not self.steps:
            raise InputError(
                "The block made no step that sends anything: run one in it. Where a batch is taken in parts, "
                "as Opacus' BatchMemoryManager does, keep the block open for the whole batch."
            )
        if len(self.steps) > 1:
            raise InputError(
                f"The block made {len(self.steps)} optimiser steps: run one in it, or take one of `steps`."
            )
        return self.steps[0]


@contextmanager
def capture(model: nn.Module, optimizer: Any, *, batch_size: int | None = None) -> Iterator[Captured]:
    """Keeps what each optimiser step inside the block sends, and the model that the gradient is of.

    The training goes on as without it. What is kept is what a server sees that gets every gradient: that of
    the parameters which the optimiser steps. In the copy of the model, all others are frozen.

    Args:
        model: the model in training, as `optimizer` steps it; Opacus' `GradSampleModule` is unwrapped.
        optimizer: of PyTorch, or Opacus' `DPOptimizer`, whose sigma, C and expected batch are read; wrappers
            of Lightning and Accelerate are looked through.
        batch_size: images in the step's batch; needed for optimisers of PyTorch.

    Yields:
        Its `release` and `model` can be read once the step is done.

    Raises:
        InputError: without a `batch_size` that is needed, for an optimiser of another model or one whose
            release cannot be read; inside a step that evaluates its closure more than once, or before which
            the clip norm of Opacus changed; and where another optimiser steps parameters that one of Opacus
            does not.

    Example:
        >>> import torch
        >>> model = nn.Linear(4, 2)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> with capture(model, optimizer, batch_size=3) as captured:
        ...     model(torch.ones(3, 4)).mean().backward()
        ...     optimizer.step()
        >>> captured.release.batch_size, captured.release.names
        (3, ('weight', 'bias'))
    """
    optimizer = sent.bare_optimizer(optimizer)
    inner = getattr(optimizer, "original_optimizer", None)
    if inner is not None:
        sent.check_kind(optimizer)
        if batch_size is not None:
            raise InputError("Leave out `batch_size`: this optimiser of Opacus knows the batch it expects.")
    elif batch_size is None:
        raise InputError(
            "Give `batch_size`, the images in the step's batch: this optimiser does not know it."
        )
    else:
        batch_size = counted("batch_size", batch_size)
    sent.stepped(model, optimizer)
    found = Captured()
    norm = getattr(optimizer, "max_grad_norm", None)

    def keep() -> None:
        if inner is None:
            release = _plain(model, optimizer, batch_size)
        else:
            if not found.steps and optimizer.max_grad_norm != norm:
                raise InputError(
                    f"The clip norm became {optimizer.max_grad_norm:g} inside the block, and was {norm:g} "
                    "before. Parts of the batch that were clipped to the old one have noise for the new one, "
                    "and then the epsilon does not hold: change the norm between batches, outside the block."
                )
            release = Release.from_optimizer(optimizer, model)
        before = unwrapped(model)
        for name, parameter in before.named_parameters():
            parameter.requires_grad_(name in release.names)
        found.steps.append((before, release))

    def begin(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any] | None:
        if any(map(callable, (*args, *kwargs.values()))):
            followed = _followed(keep)
            return tuple(map(followed, args)), {name: followed(each) for name, each in kwargs.items()}
        keep()
        return None

    def watch(other: torch.optim.Optimizer, *_: Any) -> None:
        sent.check_alone(model, optimizer, other)

    with ExitStack() as until_the_end:
        if inner is not None:
            sent.check_alone(model, optimizer)
            until_the_end.callback(register_optimizer_step_pre_hook(watch).remove)
        # Opacus hands over to the optimiser it wraps once the noise is added
        until_the_end.callback((inner or optimizer).register_step_pre_hook(begin).remove)
        yield found


def _followed(keep: Callable[[], None]) -> Callable[[Any], Any]:
    """What puts `keep` behind the closure that computes a step's gradient, and leaves the rest alone."""
    evaluated: list[None] = []

    def wrapped(given: Any) -> Any:
        if not callable(given):
            return given

        def closure() -> Any:
            if evaluated:
                raise InputError(
                    "The optimiser evaluates its closure more than once in a step, as line searches do, so "
                    "there is no one gradient that is sent: capture a step that needs one evaluation."
                )
            loss = given()
            evaluated.append(None)
            keep()
            return loss

        return closure

    return wrapped


def _plain(model: nn.Module, optimizer: Any, batch_size: int) -> Release:
    """The gradients that a PyTorch optimiser steps with, as `Release.from_gradients`."""
    whole = Release.from_gradients(model, batch_size=batch_size)
    held = sent.stepped(model, optimizer)
    # a fused optimiser undoes the scaling of mixed precision itself, within the step
    scale = getattr(optimizer, "grad_scale", None)
    gradients = {
        name: gradient if scale is None else gradient / scale.to(gradient.device)
        for name, gradient in zip(whole.names, whole.gradients, strict=True)
        if name in held
    }
    return replace(whole, names=tuple(gradients), gradients=tuple(gradients.values()))

"""`capture`: what one optimiser step sends, taken from a training loop as it is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from defenses.copies import untouched
from dpbench.protocol import InputError, Release, sent
from dpbench.protocol.accounted import owner_in_opacus

_OF_OPACUS = {"ft_compute_sample_grad", "autograd_grad_sample_hooks"}
"""Attributes of modules: per-sample gradients by functorch, with a layer on the meta device, and hooks."""


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
        if len(self.steps) != 1:
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
        optimizer: of PyTorch, or Opacus' `DPOptimizer`, whose sigma, C and expected batch are read.
        batch_size: images in the step's batch; needed for optimisers of PyTorch.

    Yields:
        Its `release` and `model` can be read once the step is done.

    Raises:
        InputError: without a `batch_size` that is needed, for an optimiser of another model or one whose
            release cannot be read; inside a step with a closure; and where another optimiser steps parameters
            that one of Opacus does not.

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
    inner = getattr(optimizer, "original_optimizer", None)
    if inner is not None:
        sent.check_kind(optimizer)
    elif batch_size is None:
        raise InputError(
            "Give `batch_size`, the images in the step's batch: this optimiser does not know it."
        )
    sent.stepped(model, optimizer)
    found = Captured()

    def keep(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if any(map(callable, (*args, *kwargs.values()))):
            raise InputError(
                "A step with a closure computes its gradient after it has begun, once or more often: call "
                "`backward()` before a `step()` without one."
            )
        if inner is None:
            release = _plain(model, optimizer, batch_size)
        else:
            release = Release.from_optimizer(optimizer, model)
        before = unwrapped(model)
        for name, parameter in before.named_parameters():
            parameter.requires_grad_(name in release.names)
        found.steps.append((before, release))

    def watch(other: torch.optim.Optimizer, *_: Any) -> None:
        sent.check_alone(model, optimizer, other)

    with ExitStack() as until_the_end:
        if inner is not None:
            sent.check_alone(model, optimizer)
            until_the_end.callback(register_optimizer_step_pre_hook(watch).remove)
        # Opacus hands over to the optimiser it wraps once the noise is added
        until_the_end.callback((inner or optimizer).register_step_pre_hook(keep).remove)
        yield found


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


def unwrapped(model: nn.Module) -> nn.Module:
    """A copy of `model` without what Opacus, DistributedDataParallel or torch.compile put around it.

    Example:
        >>> unwrapped(nn.DataParallel(nn.Linear(2, 1)))
        Linear(in_features=2, out_features=1, bias=True)
    """
    copied = untouched(sent.bare(model))
    for module in copied.modules():
        for hooks in (module._forward_hooks, module._backward_hooks):
            for key in [key for key, hook in hooks.items() if owner_in_opacus(hook) is not None]:
                del hooks[key]
        for name in _OF_OPACUS & vars(module).keys():
            delattr(module, name)
    return copied

"""`capture`: what one optimiser step sends, taken from a training loop as it is."""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from dpbench.protocol import InputError, Release
from dpbench.protocol.sent import plain_name


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

    The training goes on as without it. What is kept is what a server sees that gets every gradient.

    Args:
        model: the model in training, as `optimizer` steps it; Opacus' `GradSampleModule` is unwrapped.
        optimizer: of PyTorch, or Opacus' `DPOptimizer`, whose sigma, C and expected batch are read.
        batch_size: images in the step's batch; needed for optimisers of PyTorch.

    Yields:
        Its `release` and `model` can be read once the step is done.

    Raises:
        InputError: without a `batch_size` that is needed, and inside the step for an optimiser whose release
            cannot be read.

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
    if inner is None and batch_size is None:
        raise InputError(
            "Give `batch_size`, the images in the step's batch: this optimiser does not know it."
        )
    found = Captured()

    def keep(*_: Any) -> None:
        if inner is None:
            sent = Release.from_gradients(model, batch_size=batch_size)
        else:
            sent = Release.from_optimizer(optimizer)
        found.steps.append((unwrapped(model), sent))

    # Opacus hands over to the optimiser it wraps once the noise is added
    handle = (inner or optimizer).register_step_pre_hook(keep)
    try:
        yield found
    finally:
        handle.remove()


def unwrapped(model: nn.Module) -> nn.Module:
    """A copy of `model` without what Opacus, DistributedDataParallel or torch.compile put around it.

    Example:
        >>> unwrapped(nn.DataParallel(nn.Linear(2, 1)))
        Linear(in_features=2, out_features=1, bias=True)
    """
    while len(children := dict(model.named_children())) == 1 and plain_name(f"{next(iter(children))}.") == "":
        model = next(iter(children.values()))
    copied = copy.deepcopy(model)
    for module in copied.modules():
        for hooks in (module._forward_hooks, module._backward_hooks):
            for key in [key for key, hook in hooks.items() if _of_opacus(hook)]:
                del hooks[key]
    return copied


def _of_opacus(hook: Any) -> bool:
    """Whether a hook computes per-sample gradients, which is no part of the model."""
    if isinstance(hook, functools.partial):
        hook = hook.func
    return type(getattr(hook, "__self__", None)).__module__.startswith("opacus.")

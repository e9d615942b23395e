"""A model out of somebody's training loop, without what the loop put around it or into it."""

from __future__ import annotations

from torch import nn

from defenses.copies import untouched
from dpbench.protocol import sent
from dpbench.protocol.accounted import owner_in_opacus

_OF_OPACUS = {"ft_compute_sample_grad", "autograd_grad_sample_hooks"}
"""Attributes of modules: per-sample gradients by functorch, with a layer on the meta device, and hooks."""


def unwrapped(model: nn.Module) -> nn.Module:
    """A copy of `model` without what Opacus, Accelerate, DistributedDataParallel or torch.compile added.

    Raises:
        InputError: for a model that cannot be copied.

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
        # Accelerate computes in half precision by another `forward`; what is attacked is differentiated twice
        if getattr(vars(module).get("forward"), "__module__", "").startswith("accelerate."):
            del module.forward, module._original_forward
    return copied

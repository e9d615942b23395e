"""Victims whose samples have no gradient of their own, as other samples have a part in it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from defenses.copies import untouched
from defenses.per_sample.errors import ADVICE, culprit, in_brief, named
from dpbench.protocol import InputError

TOLERANCE = 1e-3


def check_independent(model: nn.Module, images: Tensor) -> None:
    """InputError where a sample's output depends on other samples: it then has no gradient of its own.

    Args:
        model: in the mode the gradient is to be taken in.
        images: the batch; a single image is paired with a dimmed copy of itself.
    """
    for module in model.modules():
        if isinstance(module, _BatchNorm) and (module.training or module.running_mean is None):
            raise InputError(
                f"{named(model, module)} is batch norm in training mode, which mixes the samples of a "
                "batch: use frozen statistics (`norm` frozen-bn) or group norm (`norm` gn)."
            )
    copy = untouched(model)
    before = {name: buffer.clone() for name, buffer in copy.named_buffers()}
    pair = images[:2] if len(images) > 1 else torch.cat([images, images / 2])
    seen: list[dict[nn.Module, Tensor]] = []
    for batch in (pair, pair[:1], pair[1:]):
        seen.append({})
        hooks = [
            module.register_forward_hook(lambda m, _, out, at=seen[-1]: at.setdefault(m, out))
            for module in copy.modules()
        ]
        try:
            with torch.no_grad():
                copy(batch)
        except Exception as error:  # a model that cannot take a batch of one or two
            raise InputError(
                f"The model fails on {len(batch)} images, at {culprit(error, copy)}, so per-sample gradients "
                f"do not exist: make it take a batch of any size ({in_brief(error)})."
            ) from error
        for hook in hooks:
            hook.remove()
    together, first, second = seen
    if _differ(together[copy], first[copy], second[copy]):
        # in the order in which the modules were done, so that inner ones come before those around them
        mixing = next((m for m in together if _differ(together[m], first.get(m), second.get(m))), copy)
        raise InputError(
            f"The model's output for an image depends on the other images of the batch, at "
            f"{named(copy, mixing)}, so per-sample gradients do not exist: remove what mixes samples."
        )
    for name, buffer in copy.named_buffers():
        if not torch.equal(buffer.nan_to_num(), before[name].nan_to_num()):
            module = copy.get_submodule(name.rpartition(".")[0])
            raise InputError(
                f"Module {named(copy, module)} changes its buffer {name} as it runs, which may carry data "
                f"from sample to sample: {ADVICE}."
            )


def _differ(together: object, first: object, second: object) -> bool:
    """Whether two samples' outputs are others where they go through the model together."""
    together, first, second = (
        each[0] if isinstance(each, tuple) else each for each in (together, first, second)
    )
    if not all(isinstance(each, Tensor) and each.ndim for each in (together, first, second)):
        return False
    if (
        len(together) != len(first) + len(second)
        or not together.shape[1:] == first.shape[1:] == second.shape[1:]
    ):
        return False  # the batch does not come first here
    apart = torch.cat([first, second])
    slack = TOLERANCE * float(apart.abs().nan_to_num().max())
    return not torch.allclose(together, apart, rtol=TOLERANCE, atol=slack, equal_nan=True)

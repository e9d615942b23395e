"""Victims whose samples have no gradient of their own, as other samples have a part in it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from defenses.per_sample.errors import ADVICE, named
from dpbench.protocol import InputError

TOLERANCE = 1e-3
"""Of outputs, relative to the largest one; in float32 their rounding is below 1e-5."""


def refuse_batch_statistics(model: nn.Module) -> None:
    """InputError for batch norm that normalises by the batch."""
    for module in model.modules():
        if isinstance(module, _BatchNorm) and (module.training or module.running_mean is None):
            if module.training:
                state, other = "in training mode", "use its running statistics (model.eval())"
            else:
                state, other = "without running statistics", "make it with track_running_stats=True"
            raise InputError(
                f"{named(model, module)} is batch norm {state}, which mixes the samples of a batch: {other}, "
                "or put group norm in its place."
            )


def refuse_autocast(model: nn.Module, outputs: Tensor) -> None:
    """InputError for a model that computes with fewer bits than its weights have.

    Opacus' hooks break on it, and alone and in a batch it rounds otherwise.
    """
    coarse = outputs.dtype in (torch.float16, torch.bfloat16)
    if coarse and next(model.parameters()).dtype != outputs.dtype:
        raise InputError(
            f"The model computes in {str(outputs.dtype).removeprefix('torch.')}, which is too coarse to tell "
            "whether each image has a gradient of its own: leave autocast out of its `forward`."
        )


@contextmanager
def constant_buffers(model: nn.Module) -> Iterator[None]:
    """InputError where a buffer of `model` is another one at the end, as running statistics are."""
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    try:
        yield
    except InputError:
        _refuse_changed(model, before)  # which is then why outputs differ
        raise
    _refuse_changed(model, before)


def _refuse_changed(model: nn.Module, before: dict[str, Tensor]) -> None:
    for name, buffer in model.named_buffers():
        old = before[name]
        if not (torch.equal(buffer, old) or torch.equal(buffer.nan_to_num(), old.nan_to_num())):
            module = model.get_submodule(name.rpartition(".")[0])
            raise InputError(
                f"Module {named(model, module)} changes its buffer {name} as it runs, which may carry data "
                f"from sample to sample: {ADVICE}."
            )


def check_independent(
    model: nn.Module, images: Tensor, rows: Sequence[int], together: Tensor, alone: Sequence[Tensor]
) -> None:
    """InputError where the output for an image depends on the other images of the batch.

    Args:
        model: in the mode the gradient is taken in.
        images: the batch.
        rows: which of them to look at.
        together: the model's outputs for the batch.
        alone: its outputs for each of these images alone.
    """
    for row, one in zip(rows, alone, strict=True):
        if differ(together, one, row, len(images)):
            # in the order in which the modules were done, so that inner ones come before those around them
            batch, single = _outputs(model, images), _outputs(model, images[row : row + 1])
            mixing = (m for m, out in batch.items() if differ(out, single.get(m), row, len(images)))
            raise InputError(
                f"The model's output for an image depends on the other images of the batch, at "
                f"{named(model, next(mixing, model))}, so per-sample gradients do not exist: remove what "
                "mixes samples."
            )


def _outputs(model: nn.Module, images: Tensor) -> dict[nn.Module, object]:
    """What each module returned when it was first done."""
    seen: dict[nn.Module, object] = {}

    def note(module: nn.Module, _: object, output: object) -> None:
        seen.setdefault(module, output)

    hooks = [module.register_forward_hook(note) for module in model.modules()]
    try:
        with torch.no_grad():
            model(images)
    finally:
        for hook in hooks:
            hook.remove()
    return seen


def differ(together: object, alone: object, row: int, count: int) -> bool:
    """Whether the output for an image in a batch of `count` is another one than alone."""
    together, alone = (each[0] if isinstance(each, tuple) else each for each in (together, alone))
    if not all(isinstance(each, Tensor) and each.ndim for each in (together, alone)):
        return False
    if (len(together), len(alone)) != (count, 1) or together.shape[1:] != alone.shape[1:]:
        return False  # the batch does not come first here
    slack = TOLERANCE * float(together.abs().nan_to_num().max())
    return not torch.allclose(together[row : row + 1], alone, rtol=TOLERANCE, atol=slack, equal_nan=True)

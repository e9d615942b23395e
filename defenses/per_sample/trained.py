"""May Opacus train this model? It takes the first dimension for the batch, and samples for independent."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from defenses.copies import in_release_mode, untouched
from defenses.per_sample import FEW, _opacus, per_sample
from defenses.per_sample.agreement import norms
from defenses.per_sample.errors import RefusedError, UnfitError
from defenses.per_sample.independence import constant_buffers
from dpbench.protocol import InputError, Loss, full_precision

ROUNDING = 1e-5
"""Of outputs, relative to the largest of the images compared: two batches of one shape are rounded alike."""


def check_trained(model: nn.Module, loss: Loss, images: Tensor, labels: Tensor) -> None:
    """Compare what Opacus clips with each sample's own gradient, on a few images and copies of the model.

    Args:
        model: in training mode; left untouched, and so is PyTorch's random state.
        loss: mean-reduced.
        images: float [B, ...], B at least 1.
        labels: int64 [B].

    Raises:
        InputError: for a model whose output for an image depends on the other images of the batch, or on
            earlier ones, and for one whose per-sample gradients Opacus gets wrong.
    """
    images, labels = images[:FEW], labels[:FEW]
    if len(images) == 1:
        images, labels = torch.cat([images, images / 2]), torch.cat([labels, labels])
    devices = [images.device] if images.is_cuda else []
    # TF32, in which a graphics card trains, rounds by more than a wrong gradient may be off
    with torch.random.fork_rng(devices=devices), full_precision(images.device):
        _check_unmixed(untouched(model), images)
        try:
            _opacus(untouched(model).eval(), loss, images, labels)
        except UnfitError as error:
            raise InputError(f"Opacus cannot train this model: {error}.") from error


def misread(model: nn.Module, loss: Loss, images: Tensor, labels: Tensor) -> str:
    """What Opacus' hooks get wrong in this model on a few images; empty where they are right or refuse."""
    try:
        _opacus(in_release_mode(model), loss, images[:FEW], labels[:FEW])
    except RefusedError:
        return ""
    except UnfitError as error:
        return str(error)
    return ""


def own_lengths(model: nn.Module, loss: Loss, images: Tensor, labels: Tensor) -> list[float]:
    """The l2 norm of the gradient that each image has alone, as releases are computed.

    Raises:
        InputError: as `per_sample`.
    """
    return norms(per_sample(in_release_mode(model), loss, images, labels).gradients).tolist()


@torch.no_grad()
def _check_unmixed(model: nn.Module, images: Tensor) -> None:
    """With the same random numbers, and another image in the last place, all other outputs are the same.

    Unlike a comparison with each image alone, this holds with dropout.
    """
    other = torch.cat([images[:-1], 1 - 3 * images[-1:]])
    outputs = []
    with constant_buffers(model):
        for batch in (images, other):
            torch.manual_seed(0)
            outputs.append(model(batch))
    first, second = (each[:-1] for each in outputs)
    slack = ROUNDING * float(first.abs().nan_to_num().max())
    if not torch.allclose(first, second, rtol=0, atol=slack, equal_nan=True):
        raise InputError(
            "In training, the model's output for an image depends on the other images of the batch, so "
            "per-sample gradients do not exist: remove what mixes samples."
        )

"""Trains a victim on after a defence has changed its network: what is new in it has fresh weights."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from defenses import in_release_mode
from dpbench.protocol import InputError, PublicImages
from dpbench.system import cache, digest, source
from dpbench.system.atomic import clear_leftovers, replacing

FEWEST = 1000
"""Images below which nothing is trained."""
BATCH, RATE = 64, 1e-3
"""Images of a step of Adam, and its highest step size, reached after a fifth of the steps."""
Gradient = Callable[[nn.Module, Tensor, Tensor, torch.Generator], tuple[Tensor, ...]]
"""(network, images, labels, generator) -> what the client computes of a batch, noise of its own included."""
Report = Callable[[int, int, float], None]
"""(steps done, steps in all, NaN) -> None."""
_held: dict[str, dict[str, Tensor]] = {}
"""The weights that were used last in this process."""


def trained_on(
    model: nn.Module, gradient: Gradient, public: PublicImages | None, report: Report | None = None
) -> nn.Module:
    """`model` after one pass over public images, all its weights together, in the mode it is in.

    It is kept in the cache folder.

    Args:
        model: on the CPU; left untouched.
        gradient: what each step is made with.
        public: what it is trained on, none of it attacked.
        report: told how far the training is; of weights that are kept, it hears nothing.

    Raises:
        InputError: where there are fewer than `FEWEST` images, and for weights that do not stay finite.
    """
    count = 0 if public is None else len(public.labels)
    if count < FEWEST:
        raise InputError(
            f"This defence adds a layer to the network, to be trained with the rest on {FEWEST:,} public "
            f"images or more, and there are {count}: use `data` cifar10, `victim` untrained, or give "
            "`others`."
        )
    first = gradient(in_release_mode(model), *_batch(public, range(BATCH)), torch.Generator().manual_seed(0))
    # the first gradient stands for all that decides the others: loss, defence and what the network computes
    tensors = {f"gradient {i}": g for i, g in enumerate(first)} | model.state_dict()
    tensors |= {"public images": public.images, "public labels": public.labels}
    key = digest.tensors(tensors) + digest.described({"code": source.of_file(Path(__file__))})
    if key not in _held:
        found = _read(key)
        if found is None:
            found = _trained(model, gradient, public, report)
            _keep(key, found)
        _held.clear()
        _held[key] = found
    trained = copy.deepcopy(model)
    trained.load_state_dict(_held[key])
    return trained


def _batch(public: PublicImages, places: Tensor | range) -> tuple[Tensor, Tensor]:
    images = public.images[places]
    return images if images.is_floating_point() else images.float() / 255, public.labels[places]


def _trained(
    model: nn.Module, gradient: Gradient, public: PublicImages, report: Report | None
) -> dict[str, Tensor]:
    model, generator = in_release_mode(model), torch.Generator().manual_seed(0)
    order = torch.randperm(len(public.labels), generator=generator).split(BATCH)
    weights = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(weights)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=len(order), pct_start=0.2)
    for done, places in enumerate(order, 1):
        found = gradient(model, *_batch(public, places), generator)
        for weight, own in zip(weights, found, strict=True):
            weight.grad = own
        optimizer.step()
        schedule.step()
        if report is not None:
            report(done, len(order), math.nan)
    return {name: tensor.detach().contiguous() for name, tensor in model.state_dict().items()}


def _file(key: str) -> Path:
    return cache.folder() / "changed-victims" / f"{key}.safetensors"


def _read(key: str) -> dict[str, Tensor] | None:
    """Those weights from the cache folder; None where they are not there, or cannot be read."""
    try:
        return load_file(_file(key))
    except (OSError, RuntimeError, InputError, SafetensorError):
        return None


def _keep(key: str, weights: dict[str, Tensor]) -> None:
    """Put them into the cache folder if that can be written."""
    try:
        file = _file(key)
        file.parent.mkdir(parents=True, exist_ok=True)
        clear_leftovers(file.parent)
        with replacing(file) as temporary:
            save_file(weights, temporary)
    except (OSError, RuntimeError, InputError, SafetensorError):
        pass

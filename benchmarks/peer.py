"""breaching's attacks on a release of dpbench's: the same gradients, labels and network."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

INNER = 20
"""Iterations of PyTorch's L-BFGS in what breaching counts as one."""


class Metadata(SimpleNamespace):
    """What breaching calls metadata of the data: attributes that are also items."""

    def __getitem__(self, name: str) -> Any:
        return getattr(self, name)


def without_torchscript() -> None:
    """On the CPU it slows breaching down. What PYTORCH_JIT=0 does; to be called before its first attack."""
    torch.jit._state.disable()


def breaching(
    config: str,
    network: nn.Module,
    gradients: Sequence[Tensor],
    labels: Tensor,
    image_shape: Sequence[int],
    mean: Sequence[float],
    std: Sequence[float],
    iterations: int,
    start: Tensor | None = None,
) -> Tensor:
    """An attack of breaching's with the parameters of its own configuration.

    Args:
        config: its name there, such as `invertinggradients`.
        network: takes images in [0, 1] and brings them to `mean` and `std` in a module `normalise`; it stays
            as it is.
        gradients: of the mean cross-entropy, one for each parameter.
        labels: int64 [B]; an attack that searches labels is told how many there are.
        image_shape: (C, H, W).
        mean: per-channel mean of the data.
        std: per-channel standard deviation.
        iterations: of the search; with L-BFGS, evaluations of the gradient, about.
        start: normalised pixels [B, C, H, W]; None leaves the start to the configuration.

    Returns:
        Normalised pixels [B, C, H, W].
    """
    import breaching

    network, device = copy.deepcopy(network), gradients[0].device
    network.normalise = nn.Identity()  # breaching shows a network normalised images
    settings = breaching.get_attack_config(config)
    inner = INNER if settings.optim.optimizer.lower() == "l-bfgs" else 1
    settings.optim.max_iterations = max(1, iterations // inner)
    attacker = breaching.attacks.prepare_attack(
        network, nn.CrossEntropyLoss(), settings, {"device": device, "dtype": torch.float32}
    )
    metadata = Metadata(
        shape=list(image_shape),
        classes=len(gradients[-1]),
        mean=mean,
        std=std,
        normalize=True,
        modality="vision",
        task="classification",
    )
    told = None if settings.attack_type == "joint-optimization" else labels.clone()
    payload = {
        "parameters": list(network.parameters()),
        "buffers": list(network.buffers()),
        "metadata": metadata,
    }
    count = {"num_data_points": len(labels), "labels": told, "local_hyperparams": None}
    shared = {"gradients": [g.clone() for g in gradients], "buffers": None, "metadata": count}
    guess, _ = attacker.reconstruct([payload], [shared], {}, initial_data=start)
    return guess["data"].detach()

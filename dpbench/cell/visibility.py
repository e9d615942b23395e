"""How visible a malicious server's change of the model is to the client that gets it."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from dpbench.cell.scene import FEWEST, Scene
from dpbench.protocol import InputError


def public_of(scene: Scene, threat: str) -> tuple[Tensor, Tensor]:
    """The images outside the batch that a malicious server plans its change with, and their labels.

    Raises:
        InputError: where there are too few.
    """
    if scene.others is None or len(scene.others[0]) < FEWEST:
        raise InputError(
            f"`threat_model` {threat} needs public images like those attacked, {FEWEST} or more: give "
            "`others`."
        )
    return scene.others


def changed(scene: Scene, model: nn.Module) -> Scene:
    """`scene` with the model that the server sends, and the columns that say how visible the change is.

    A client can measure them on images of its own; images outside the batch stand for these here.

    Args:
        scene: with the honest victim, and with `others`.
        model: what the server sends in its place.
    """
    honest = scene.victim.model
    before, after = (_on(each, scene) for each in (honest, model))
    sizes = [sum(p.numel() for p in each.parameters()) for each in (honest, model)]
    seen = {
        "added_parameters": sizes[1] - sizes[0],
        "accuracy_drop": before[0] - after[0],
        "loss_rise": after[1] - before[1],
    }
    return replace(scene, victim=replace(scene.victim, model=model), visibility=seen)


def _on(model: nn.Module, scene: Scene) -> tuple[float, float]:
    """Accuracy and mean loss on the images outside the batch."""
    images, labels = scene.others
    with torch.no_grad():
        logits = model(images)
        right = (logits.argmax(1) == labels).double().mean()
        return float(right), float(scene.victim.loss(logits, labels))

"""The victim of a cell whose defence changes the network."""

from __future__ import annotations

from dataclasses import replace

from defenses import Aggregator, Defense
from defenses.base import mean_gradient
from dpbench.cell import parts
from dpbench.cell.public import public_images
from dpbench.cell.scene import Scene
from dpbench.cell.spec import Cell
from dpbench.cell.threat_model import Progress
from dpbench.protocol import InputError, Loss
from dpbench.victim.joint import Gradient, trained_on


def with_changes(cell: Cell, scene: Scene, progress: Progress | None = None) -> Scene:
    """The scene with the network and the loss that the defence makes of the victim's.

    What it adds has fresh weights. Unless the victim is an untrained one, all weights together are trained on
    for one pass over public images, from those that the victim has, under the stage alone that changed it:
    `progress` is told of its steps.

    Raises:
        InputError: for a network that the defence cannot change, and where there are too few public images.
    """
    for stage in parts.defence_of(cell).stages:
        victim = scene.victim
        model, loss = stage.victim(victim.model, victim.loss)
        if model is victim.model:
            continue
        if cell.batch.victim != "untrained":
            public = public_images(scene.public, scene.images, scene.gallery)
            model = trained_on(model, _gradient(stage, loss), public, progress)
        scene = replace(scene, victim=replace(victim, model=model, loss=loss, accuracy=None))
    return scene


def prepared(cell: Cell, scene: Scene, progress: Progress | None = None) -> Scene:
    """The scene after defence and server did to the network what they do to it before the gradient is taken.

    Raises:
        InputError: as `with_changes`, and where both change it.
    """
    threat = parts.threat_of(cell)
    changed = with_changes(cell, scene, progress)
    found = threat.prepare(changed)
    if changed.victim is not scene.victim and found.victim is not changed.victim:
        raise InputError(
            f"{cell.defence.name} changes the network, and so does `threat_model` {cell.threat.name}: use "
            "`threat_model` honest with it."
        )
    return found


def _gradient(stage: Defense, loss: Loss) -> Gradient:
    """What a step of the training is made with."""
    if isinstance(stage, Aggregator):
        return lambda model, x, y, generator: stage.aggregate(model, loss, x, y, generator)
    return lambda model, x, y, _: mean_gradient(model, loss, x, y)

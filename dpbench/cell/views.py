"""What a server makes of a release before it attacks: one view of it, or several that are attacked apart."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dpbench.protocol import InputError, Knowledge, Reconstruction, Release, Stage


@dataclass(frozen=True)
class View:
    """A release of some of the images, and what is known beside it.

    Attributes:
        release: of these images alone.
        knowledge: its model and labels are those of the view.
        note: a sentence to the user about this view; empty where there is nothing to say.
    """

    release: Release
    knowledge: Knowledge
    note: str = ""


def part_of(release: Release, gradients: Sequence[dict[str, Tensor]], batch_size: int) -> Release:
    """A release of `batch_size` of the images, whose gradients all the others' hardly touch.

    Args:
        release: of all images, mean-reduced.
        gradients: by name, of each single release, as they stand in it: divided by all images.
        batch_size: of the images that the gradients are of.

    Raises:
        InputError: for a defence that does more than clip and add noise.
    """
    ratio = release.batch_size / batch_size
    scaled = [tuple(ratio * gradient for gradient in each.values()) for each in gradients]
    mean = tuple(torch.stack(same).mean(0) for same in zip(*scaled, strict=True))
    return replace(
        release,
        names=tuple(gradients[0]),
        gradients=mean,
        repeats=tuple(scaled) if len(scaled) > 1 else (),
        batch_size=batch_size,
        clients=1,
        defense=tuple(_stage(stage, ratio) for stage in release.defense),
    )


def _stage(stage: Stage, ratio: float) -> Stage:
    """The stage with the noise that is left on the mean of fewer images."""
    if stage.name == "noise":
        given = {**stage.parameters, "noise_std": ratio * stage.parameters["noise_std"]}
        return replace(stage, parameters=given)
    if stage.name not in ("clip", "dp"):
        raise InputError(
            f"This `threat_model` takes sums of images apart, which {stage.name} does not release: use none, "
            "clip, noise or dp."
        )
    return stage


def joined(answers: Sequence[Reconstruction], images: int, guess: Tensor) -> Reconstruction:
    """The answers to all views as one; images that no view was of are guessed, without a label (-1).

    Args:
        answers: one or more.
        images: of the whole batch.
        guess: the public mean image, [C, H, W] in [0, 1].
    """
    first, missing = answers[0], images - sum(len(answer.images) for answer in answers)
    if len(answers) == 1 and not missing:
        return first

    def together(name: str, rest: Tensor) -> Tensor | None:
        found = [getattr(answer, name) for answer in answers]
        return None if any(each is None for each in found) else torch.cat([*found, rest.to(found[0])])

    guesses = guess.expand(missing, *guess.shape)
    return replace(
        first,
        images=together("images", guesses),
        start=together("start", guesses),
        labels=together("labels", torch.full((missing,), -1)),
        certified=together("certified", torch.zeros(missing, dtype=torch.bool)),
        residual=together("residual", torch.full((missing,), math.nan)),
        iterations=sum(answer.iterations for answer in answers),
        seconds=sum(answer.seconds for answer in answers),
        compile_seconds=sum(answer.compile_seconds for answer in answers),
        note=" ".join(dict.fromkeys(answer.note for answer in answers if answer.note)),
    )

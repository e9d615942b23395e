"""`dpbench.testing` says in one sentence what is wrong with an attack or a defence."""

from __future__ import annotations

import random

import pytest
import torch

import attacks
import defenses
import dpbench
from attacks import labels
from attacks.base import Attack, attack
from defenses import PostProcessor, defense
from dpbench.protocol import Reconstruction
from dpbench.testing.defenses import no_image_moves_the_sum_by_more_than_the_clip_norm
from tests.helpers.registries import as_in_a_new_process


@pytest.fixture(autouse=True)
def registries():
    with as_in_a_new_process():
        yield


def answer(task, images, **changed):
    classes, source = labels.given_or_inferred(task.release, task.knowledge)
    given = {"labels": classes, "label_source": source, "start": images, "iterations": 1} | changed
    return Reconstruction(images=images, gradient_distance=0.0, seconds=task.seconds(), **given)


def grey(task):
    return torch.full((task.release.batch_size, *task.knowledge.image_shape), 0.5)


def writes_into_weights(task):
    with torch.no_grad():
        next(iter(task.knowledge.model.parameters())).add_(1)
    return answer(task, grey(task))


def writes_into_the_release(task):
    task.release.gradients[0].zero_()
    return answer(task, grey(task))


def trains(task):
    task.knowledge.model.train()
    return answer(task, grey(task))


def cheats(task):
    from dpbench.testing.scenes import smooth_images

    return answer(task, smooth_images(task.release.batch_size))


def breaks(task):
    raise KeyError("no\nsuch key")


ATTACKS = {
    r"wrong fails where it has to work \(KeyError: .*no.*such key": breaks,
    "`run` of wrong must return a Reconstruction, not Tensor": grey,
    "`images` of wrong must be a tensor, not ndarray": lambda task: answer(task, grey(task).numpy()),
    r"`images` of wrong must be \(1, 3, 8, 8\), not": lambda task: answer(task, torch.zeros(1, 1, 2, 2)),
    "`start` of wrong must lie in": lambda task: answer(task, grey(task), start=grey(task) + 1),
    "must be float32": lambda task: answer(task, grey(task).double()),
    "must lie in": lambda task: answer(task, grey(task) + 1),
    "`labels` of wrong must be int64": lambda task: answer(task, grey(task), labels=task.noise(1)),
    "was told none": lambda task: answer(task, grey(task), label_source="known"),
    "`iterations` of wrong": lambda task: answer(task, grey(task), iterations=2),
    "two answers for one seed": lambda task: answer(task, torch.rand_like(grey(task))),
    "changes `conv.weight` of the victim": writes_into_weights,
    "changes the release": writes_into_the_release,
    "leaves the victim in training mode": trains,
    "knows the image from somewhere else": cheats,
    "has to gain 3 dB": lambda task: answer(task, grey(task)),
}


@pytest.mark.parametrize(("said", "run"), ATTACKS.items())
def test_what_an_attack_does_wrong_is_said(said, run):
    @attack("wrong")
    class Wrong(Attack):
        def run(self, task):
            return run(task)

    with pytest.raises(AssertionError, match=said) as error:
        dpbench.testing.check_attack(Wrong)
    assert "\n" not in str(error.value)


def test_an_attack_that_reads_no_gradient_passes_once_it_says_so():
    @attack("wrong")
    class Grey(Attack):
        noise_floor = False
        __module__ = __name__

        def run(self, task):
            return answer(task, grey(task))

    globals()["Grey"], Grey.__qualname__ = Grey, "Grey"  # where pickle finds it
    dpbench.testing.check_attack(Grey)


def test_what_is_not_registered_is_said():
    class Unknown(Attack):
        def run(self, task):
            return answer(task, grey(task))

    with pytest.raises(AssertionError, match="put @attack"):
        dpbench.testing.check_attack(Unknown)
    with pytest.raises(AssertionError, match="no subclass of attacks"):
        dpbench.testing.check_attack(attacks.create("dlg"))
    with pytest.raises(AssertionError, match="no subclass of defenses"):
        dpbench.testing.check_defense(Unknown)


STATE = []


def counts(gradients, generator):
    STATE.append(1)
    return tuple(g * len(STATE) for g in gradients)


def fails(gradients, generator):
    raise ValueError("no\nsuch value")


DEFENCES = {
    r"wrong fails where it has to work \(ValueError: no such value\)": fails,
    r"wrong hands back gradients of shapes \[4, 3, 3, 3\], and those of the model": (
        lambda gradients, _: gradients[:1]
    ),
    "changes the gradients that it is given: make new": lambda gradients, _: tuple(
        g.mul_(0.5) for g in gradients
    ),
    "changes the gradients that it is given": lambda gradients, _: tuple(g.zero_() for g in gradients),
    "draw every random number from `generator`": lambda gradients, _: tuple(
        g * random.random() for g in gradients
    ),
    "says repeatable = False": lambda gradients, generator: tuple(
        g + torch.randn(g.shape, generator=generator) for g in gradients
    ),
    "two releases for one seed": counts,
    "for `0.weight`": lambda gradients, _: tuple(g.float() for g in gradients),
    "releases numbers that are not finite": lambda gradients, _: tuple(g / 0 for g in gradients),
}


@pytest.mark.parametrize(("said", "process"), DEFENCES.items())
def test_what_a_defence_does_wrong_is_said(said, process):
    @defense("wrong")
    class Wrong(PostProcessor):
        __module__ = __name__

        def process(self, gradients, generator):
            return process(gradients, generator)

    globals()["Wrong"], Wrong.__qualname__ = Wrong, "Wrong"
    with pytest.raises(AssertionError, match=said) as error:
        dpbench.testing.check_defense(Wrong)
    assert "\n" not in str(error.value)


def test_a_clip_norm_that_does_not_hold_is_said():
    (clip,) = defenses.stages("clip")

    @defense("wrong")
    class Loose(clip):
        def aggregates(self, *given):
            return [tuple(1.5 * g for g in each) for each in super().aggregates(*given)]

    with pytest.raises(AssertionError, match="moves the sum by"):
        no_image_moves_the_sum_by_more_than_the_clip_norm("wrong")
